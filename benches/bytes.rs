//! How many bytes things keep, by a counting allocator; `.ci/bench` runs it all. Everything is printed as tab-separated
//! lines.

use std::{alloc::System, env};

use mcp_session_layer_benches::memory;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let live = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated as u64 - stats.bytes_deallocated as u64
    };
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["sessions", who, sessions] => memory::sessions(who, number(sessions), live),
        ["streams", streams] => memory::streams(number(streams), live),
        _ => panic!("sessions anonymous|shared|distinct N, streams N"),
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}
