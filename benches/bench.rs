//! What is timed, and what `valgrind` counts; `.ci/bench` runs it all. Everything is printed as tab-separated lines.

use std::env;

use mcp_session_layer_benches::{drive, lookups, sockets, streams};

fn main() {
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["requests", service, request, requests] => drive::main(service, request, requests),
        ["lookups"] => lookups::touches(&[1_000, 100_000, 1_000_000]),
        ["creations"] => lookups::creations(&[100_000, 1_000_000]),
        ["streams"] => streams::main(),
        ["sockets", sessions, streams] => sockets::main(number(sessions), number(streams)),
        ["serve", how] => sockets::serve(how),
        _ => panic!(
            "requests SERVICE REQUEST[@SESSIONS] N, lookups, creations, streams, sockets SESSIONS STREAMS"
        ),
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}
