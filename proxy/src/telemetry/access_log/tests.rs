use std::fs;
use std::path::Path;
use std::time::SystemTime;

use sluice_config::bootstrap::AccessLogFormat;

use super::*;

/// Far longer than any test needs: a wait that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn record(path: &str) -> RequestRecord {
    let request_id = "r".to_owned();
    let method = http::Method::GET;
    RequestRecord::new(
        SystemTime::UNIX_EPOCH,
        method,
        path.to_owned(),
        http::Version::HTTP_11,
        request_id,
    )
}

fn to_file(path: &Path) -> AccessLogConfig {
    let output = path.display().to_string();
    AccessLogConfig {
        enabled: true,
        format: AccessLogFormat::Text,
        output,
        queue: 8192,
    }
}

/// A log whose writer never takes anything.
fn stuck(queue: usize) -> AccessLog {
    let shared = Shared {
        queue: ArrayQueue::new(queue),
        asleep: AtomicBool::new(false),
        dropped: Counter::default(),
    };
    let handle = WriterHandle {
        thread: thread::current(),
        flushes: Mutex::new(None),
        ended: Mutex::new(channel().1),
    };
    AccessLog {
        shared: Arc::new(shared),
        writer: Some(handle),
    }
}

#[test]
fn dropping_the_log_writes_what_is_queued_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&to_file(&path)).unwrap();
    for number in 0..1000 {
        log.log(record(&format!("/{number}")));
    }
    drop(log);
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 1000);
    for (number, line) in text.lines().enumerate() {
        assert!(
            line.contains(&format!("\"GET /{number} HTTP/1.1\"")),
            "{line}"
        );
    }
}

#[test]
fn a_sleeping_writer_is_woken_for_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    // Left alone, the writer would sleep for far longer than the test has patience.
    let log =
        AccessLog::start_checking(&to_file(&path), Counter::default(), PATIENCE * 100).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    for number in 1..=3 {
        while !log.shared.asleep.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        log.log(record("/"));
        // No flush here: it would wake the writer itself.
        while fs::read_to_string(&path).unwrap().lines().count() < number {
            assert!(
                std::time::Instant::now() < deadline,
                "line {number} was not written"
            );
            thread::yield_now();
        }
    }
}

#[test]
fn lines_of_many_threads_are_all_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&to_file(&path)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| log.log(record("/x"))));
        }
    });
    assert!(log.flush(PATIENCE));
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 2000);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let log = stuck(4);
    for _ in 0..10 {
        log.log(record("/"));
    }
    assert_eq!(log.dropped(), 6);
    assert_eq!(log.shared.queue.len(), 4);
}

#[test]
fn what_clients_chose_is_clipped_before_it_is_queued() {
    let log = stuck(1);
    let mut huge = record(&"p".repeat(1 << 20));
    huge.model = Some("m".repeat(1 << 20));
    log.log(huge);
    let queued = log.shared.queue.pop().unwrap();
    assert!(queued.path.len() < 4096 && queued.model.unwrap().len() < 4096);
}

#[test]
fn a_file_renamed_away_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let log = AccessLog::start(&to_file(&path)).unwrap();
    log.log(record("/before"));
    assert!(log.flush(PATIENCE));
    fs::rename(&path, &rotated).unwrap();
    assert!(log.flush(PATIENCE));
    log.log(record("/after"));
    assert!(log.flush(PATIENCE));
    let (old, new) = (
        fs::read_to_string(rotated).unwrap(),
        fs::read_to_string(path).unwrap(),
    );
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
    assert!(new.contains("/after") && !new.contains("/before"), "{new}");
}

#[test]
fn an_existing_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "kept\n").unwrap();
    let log = AccessLog::start(&to_file(&path)).unwrap();
    log.log(record("/"));
    drop(log);
    assert!(fs::read_to_string(path).unwrap().starts_with("kept\n["));
}

#[test]
fn a_failing_output_counts_its_lines() {
    // Writing to it always fails: no space left.
    let log = AccessLog::start(&to_file(Path::new("/dev/full"))).unwrap();
    for _ in 0..3 {
        log.log(record("/"));
    }
    assert!(log.flush(PATIENCE));
    assert_eq!(log.dropped(), 3);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = AccessLog::start(&to_file(&folder.path().join("missing/access.log"))).unwrap_err();
    assert!(error.to_string().contains("missing/access.log"), "{error}");
}

#[test]
fn a_log_that_is_off_takes_records_and_counts_nothing() {
    let log = AccessLog::start(&AccessLogConfig {
        enabled: false,
        ..to_file(Path::new("/nowhere/x"))
    })
    .unwrap();
    log.log(record("/"));
    assert!(log.flush(PATIENCE) && log.stop(PATIENCE));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn stopping_twice_is_safe_and_later_flushes_say_no() {
    let folder = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&to_file(&folder.path().join("access.log"))).unwrap();
    assert!(log.stop(PATIENCE) && log.stop(PATIENCE));
    assert!(!log.flush(PATIENCE));
}
