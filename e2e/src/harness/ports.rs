//! Ports for servers that cannot report what port 0 gave them (Pingora cannot).
//!
//! Below the kernel's ephemeral range, so that no outgoing connection takes one in between; each process starts
//! elsewhere, and never gives the same port twice.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nothing listens.
///
/// # Panics
/// When every port of the range is taken.
pub fn free_port() -> u16 {
    let start = (std::process::id() % 97) as u16 * 101;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % COUNT;
        let port = FIRST + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
