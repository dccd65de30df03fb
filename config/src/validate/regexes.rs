//! Compiled regular expressions, kept from one load to the next.
//!
//! Compiling is by far the dearest part of a load, and patterns seldom change.

use std::collections::{HashMap, HashSet};

use regex::{Regex, RegexBuilder};

/// Bytes that one compiled pattern may take: a dozen `\w` of all scripts. A document may have hundreds of patterns.
const MAX_COMPILED_BYTES: usize = 256 << 10;
/// Patterns kept by [`Regexes::trim`].
const MAX_KEPT: usize = 4096;

/// Pattern to program, or to what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Regexes {
    compiled: HashMap<String, Result<Regex, String>>,
    used: HashSet<String>,
}

impl Regexes {
    /// Compiles `pattern` unless that was done before.
    pub(crate) fn compile(&mut self, pattern: &str) -> Result<Regex, String> {
        if !self.used.contains(pattern) {
            self.used.insert(pattern.to_owned());
        }
        if let Some(known) = self.compiled.get(pattern) {
            return known.clone();
        }
        let result = RegexBuilder::new(pattern)
            .size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| reason(&error));
        self.compiled.insert(pattern.to_owned(), result.clone());
        result
    }

    /// Forgets all when they have become many: for sources that bring single documents, after which one cannot tell
    /// who is still in use. What was compiled goes on working.
    pub(crate) fn trim(&mut self) {
        if self.compiled.len() > MAX_KEPT {
            self.compiled.clear();
            self.used.clear();
        }
    }

    /// Forgets patterns that nobody asked for since the last call.
    pub(crate) fn sweep(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.compiled.retain(|pattern, _| used.contains(pattern));
    }
}

/// The last line of the parser's drawing says what is wrong.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}
