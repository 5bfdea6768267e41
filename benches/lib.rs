//! What the programs here share.

pub mod drive;
pub mod lookups;
pub mod memory;
pub mod peers;
pub mod request;
pub mod services;
pub mod sockets;
pub mod strangers;
pub mod streams;

use std::time::Duration;

/// The one in the middle: neighbours on a machine only ever make a few rounds slower.
#[must_use]
pub fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Nanoseconds of each of so many.
#[must_use]
pub fn each(took: Duration, of: usize) -> f64 {
    took.as_nanos() as f64 / of as f64
}

/// A number that looks random and is not.
#[must_use]
pub fn scrambled(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The id of the session of this number: 36 characters, as a UUID has.
#[must_use]
pub fn id_of(number: u64) -> String {
    let (high, low) = (scrambled(number), scrambled(!number));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

/// The resident bytes of this process, or of that one.
#[must_use]
pub fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("a process on Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number of KiB")
        * 1024
}
