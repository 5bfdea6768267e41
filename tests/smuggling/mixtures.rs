//! Pieces of requests in any order.

use mcp_session_layer::SessionStore as _;
use proptest::test_runner::{Config, TestRng, TestRunner};

use crate::{
    exchange,
    support::{
        sockets::serve,
        witness::{LIVE, Witness},
    },
};

/// Requests of nasty pieces, one behind another, always the same ones.
#[test]
fn no_mixture_of_pieces_brings_a_dead_id_in() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let (witness, app) = runtime.block_on(Witness::app());
    let addr = runtime.block_on(serve(app));
    let piece = proptest::sample::select(PIECES);
    let pieces = proptest::collection::vec(piece, 1..20);
    let config = Config {
        cases: 1_500,
        failure_persistence: None,
        ..Config::default()
    };
    let (answers, calls) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let checked = TestRunner::new_with_rng(config, rng).run(&pieces, |pieces| {
        let sent = pieces.concat();
        let replies = runtime.block_on(exchange(addr, sent.as_bytes(), 0));
        answers.set(answers.get() + replies.len());
        calls.set(calls.get() + witness.seen().len());
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{} answers, {} calls of the service",
        answers.get(),
        calls.get()
    );
    assert!(answers.get() > 500 && calls.get() > 10);
    assert!(
        runtime
            .block_on(witness.store.load(&LIVE.parse().unwrap()))
            .unwrap()
            .is_some()
    );
}

const PIECES: &[&str] = &[
    "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\n",
    "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nMcp-Session-Id: live\r\n",
    "POST /x/../mcp HTTP/1.1\r\nHost: mcp.test\r\n",
    "GET /docs/%6dcp HTTP/1.1\r\nHost: mcp.test\r\n",
    "GET /mcp HTTP/1.0\r\nConnection: keep-alive\r\n",
    "Mcp-Session-Id: dead\r\n",
    "Mcp-Session-Id: live\r\n",
    "Mcp-Session-Id: live\n",
    "Mcp-Session-Id:\r\n",
    " dead\r\n",
    "Content-Length: 40\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "MCP-Protocol-Version: 2026-07-28\r\n",
    "Mcp-Method: initialize\r\n",
    "Expect: 100-continue\r\n",
    "Connection: Mcp-Session-Id\r\n",
    "\r\n",
    "\r\n\r\n",
    "28\r\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\r\n",
    "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nMcp-Session-Id: dead\r\n\r\n",
    "\0",
];
