//! Public traces as workloads: Mooncake's (JSON lines with block ids) and Azure's (CSV of lengths), plain or `.xz`.

use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use sluice_e2e::engine::{Profile, hash};

use super::{Request, Start, Workload, fleet};
use crate::sim::prompt::Segment;

/// Tokens that one id of a Mooncake trace stands for.
const MOONCAKE_BLOCK: u32 = 512;
/// Stamps of Mooncake's traces are rounded to about so many milliseconds; left so, every policy would be judged on
/// bursts that never were.
const MOONCAKE_ROUNDING_MS: f64 = 3000.0;
/// Longer prompts than any engine takes are somebody's mistake.
const MAX_TOKENS: u32 = 1 << 20;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No such source.
    #[error("trace {0:?} has no known kind, write mooncake:FILE or azure:FILE")]
    Kind(String),
    /// The file cannot be read.
    #[error("cannot read trace {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not xz.
    #[error("cannot decompress trace {path}, is it an .xz file: {reason}")]
    Compressed {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A line is not of this kind.
    #[error("line {line} of the trace is not a {kind} request: {reason}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What it was read as.
        kind: &'static str,
        /// Why.
        reason: String,
    },
}

/// Workload B: the conversation trace that lies in this repository.
pub(super) fn conversation(seed: u64, speed: f64) -> Result<Workload, TraceError> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/traces/mooncake_conversation.jsonl.xz"
    );
    Ok(workload(mooncake(open(Path::new(path))?, seed)?, speed))
}

/// `mooncake:FILE` or `azure:FILE`, its times divided by `speed`.
pub(super) fn read(source: &str, seed: u64, speed: f64) -> Result<Workload, TraceError> {
    let requests = match source.split_once(':') {
        Some(("mooncake", path)) => mooncake(open(Path::new(path))?, seed)?,
        Some(("azure", path)) => azure(open(Path::new(path))?)?,
        _ => return Err(TraceError::Kind(source.to_owned())),
    };
    Ok(workload(requests, speed))
}

fn workload(mut requests: Vec<(f64, Request)>, speed: f64) -> Workload {
    requests.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let first = requests.first().map_or(0.0, |&(time, _)| time);
    let requests = requests.into_iter().map(|(time, mut request)| {
        request.start = Start::At(Duration::from_secs_f64((time - first) / speed));
        request
    });
    Workload {
        name: String::new(),
        engines: fleet(Profile::H8B, 8),
        absent: Vec::new(),
        requests: requests.collect(),
        callers: None,
        incidents: Vec::new(),
        fits_memory: false,
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, TraceError> {
    let read = |source| TraceError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut file = BufReader::new(file);
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(Box::new(file));
    }
    let mut text = Vec::new();
    lzma_rs::xz_decompress(&mut file, &mut text).map_err(|error| TraceError::Compressed {
        path: path.to_owned(),
        reason: format!("{error:?}"),
    })?;
    Ok(Box::new(Cursor::new(text)))
}

/// The lines that are not empty, with their numbers.
fn lines(
    reader: impl BufRead,
    kind: &'static str,
) -> impl Iterator<Item = Result<(usize, String), TraceError>> {
    reader
        .lines()
        .enumerate()
        .map(move |(index, line)| match line {
            Ok(line) => Ok((index + 1, line)),
            Err(error) => Err(TraceError::Line {
                line: index + 1,
                kind,
                reason: error.to_string(),
            }),
        })
        .filter(|line| !matches!(line, Ok((_, text)) if text.trim().is_empty()))
}

#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

fn mooncake(reader: impl BufRead, seed: u64) -> Result<Vec<(f64, Request)>, TraceError> {
    let mut random = StdRng::seed_from_u64(seed);
    lines(reader, "Mooncake")
        .map(|line| {
            let (number, text) = line?;
            let line: MooncakeLine =
                serde_json::from_str(&text).map_err(|error| TraceError::Line {
                    line: number,
                    kind: "Mooncake",
                    reason: error.to_string(),
                })?;
            let jitter = random.random::<f64>() * MOONCAKE_ROUNDING_MS;
            let mut left = line.input_length.clamp(1, MAX_TOKENS);
            let mut prompt = Vec::with_capacity(line.hash_ids.len());
            for id in line.hash_ids {
                let tokens = left.min(MOONCAKE_BLOCK);
                if tokens > 0 {
                    prompt.push(Segment::text(id, tokens));
                }
                left -= tokens;
            }
            if left > 0 {
                prompt.push(Segment::text(hash::mix(number as u64, 5), left));
            }
            let request = request(number as u64, prompt, line.output_length);
            Ok(((line.timestamp + jitter) / 1e3, request))
        })
        .collect()
}

fn azure(reader: impl BufRead) -> Result<Vec<(f64, Request)>, TraceError> {
    lines(reader, "Azure")
        .skip(1)
        .map(|line| {
            let (number, text) = line?;
            let mut fields = text.trim().split(',');
            let (stamp, input, output) = (fields.next(), fields.next(), fields.next());
            let whole = |field: Option<&str>| field.and_then(|field| field.parse::<u32>().ok());
            let (Some(time), Some(input), Some(output)) =
                (stamp.and_then(seconds), whole(input), whole(output))
            else {
                return Err(TraceError::Line {
                    line: number,
                    kind: "Azure",
                    reason: "expected TIMESTAMP,ContextTokens,GeneratedTokens".to_owned(),
                });
            };
            let name = hash::mix(number as u64, 5);
            let prompt = vec![Segment::text(name, input.clamp(1, MAX_TOKENS))];
            Ok((time, request(number as u64, prompt, output)))
        })
        .collect()
}

fn request(name: u64, prompt: Vec<Segment>, output_tokens: u32) -> Request {
    Request {
        start: Start::At(Duration::ZERO),
        prompt,
        output_tokens: output_tokens.clamp(1, MAX_TOKENS),
        output_seed: hash::mix(name, 4),
        session: name,
    }
}

/// Seconds of `2023-11-16 18:17:03.9799600`, counted from some midnight; a trace may run past one or two, within a
/// month.
fn seconds(stamp: &str) -> Option<f64> {
    let (date, time) = stamp.split_once(' ')?;
    let day: f64 = date.rsplit('-').next()?.parse().ok()?;
    let mut parts = time.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(((day * 24.0 + hours) * 60.0 + minutes) * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOONCAKE: &str = r#"{"timestamp": 0, "input_length": 1100, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 6000, "input_length": 600, "output_length": 3, "hash_ids": [0, 7]}
"#;
    const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.5000000,4808,10\r\n2023-11-17 00:00:01.0000000,110,27";

    #[test]
    fn a_mooncake_line_becomes_its_blocks() {
        let workload = workload(mooncake(MOONCAKE.as_bytes(), 1).unwrap(), 2.0);
        let [first, second] = &workload.requests[..] else {
            panic!("two requests");
        };
        let blocks = [(0, 512), (1, 512), (2, 76)].map(|(id, tokens)| Segment::text(id, tokens));
        assert_eq!((&first.prompt[..], first.output_tokens), (&blocks[..], 500));
        assert_eq!(second.prompt[0], first.prompt[0]);
        assert_eq!(first.start, Start::At(Duration::ZERO));
        let Start::At(time) = second.start else {
            panic!("a trace's requests have times");
        };
        // Six seconds and at most three of jitter either way, at twice the speed.
        assert!((1.5..4.5).contains(&time.as_secs_f64()), "{time:?}");
    }

    #[test]
    fn an_azure_trace_may_run_past_midnight() {
        let requests = workload(azure(AZURE.as_bytes()).unwrap(), 1.0).requests;
        assert_eq!(requests[1].start, Start::At(Duration::from_millis(1500)));
        assert_eq!(requests[0].prompt[0].tokens, 4808);
        assert_eq!(requests[1].output_tokens, 27);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = azure("a,b,c\n2023-11-16 23:59:59.5,x,10".as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 2"), "{error}");
        let error = mooncake("{\"timestamp\": 1}".as_bytes(), 1).unwrap_err();
        assert!(error.to_string().contains("input_length"), "{error}");
    }

    #[test]
    fn a_compressed_trace_is_read() {
        let path = std::env::temp_dir().join(format!("sluice-trace-{}.xz", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        lzma_rs::xz_compress(&mut AZURE.as_bytes(), &mut file).unwrap();
        let source = format!("azure:{}", path.display());
        let workload = read(&source, 1, 1.0);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(workload.unwrap().requests.len(), 2);
        assert!(matches!(read("x", 1, 1.0), Err(TraceError::Kind(_))));
    }
}
