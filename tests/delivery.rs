//! A refusal reaches its client: at once, however much of the body is still to come, and on a
//! connection that goes on working. Over real sockets, because that is where it goes wrong.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, extract::Request, response::Response, routing};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::join_all, stream};
use mcp_session_layer::MemoryStore;
use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use uuid::Uuid;

use support::{
    answers::NOT_FOUND,
    layer::layer,
    sockets::serve,
    wire::{Http1, Http2},
};

mod support;

/// Serves `/mcp`; what is let through is answered with 200 and the request's body.
async fn server() -> SocketAddr {
    let guarded = layer(MemoryStore::new()).layer(routing::post(echo));
    serve(Router::new().route_service("/mcp", guarded)).await
}

async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_before_it_reads_gets_every_404_on_one_connection() {
    let addr = server().await;
    for size in [200, 64 * KIB, MIB, 4 * MIB] {
        let mut client = Client::connect(addr).await;
        let body = vec![b'x'; size];
        for nth in 1..=40 {
            let delivered = async {
                client.send(&dead(&length(size))).await?;
                // Every other time the answer is there before the body leaves.
                if nth % 2 == 0 {
                    client.0.0.get_ref().readable().await?;
                }
                client.send(&body).await?;
                client.answer().await
            };
            let answer = delivered.await.map_err(|error| error.kind());
            assert_eq!(answer, Ok(not_found()), "{nth} of 40, {size} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_swallowed_to_its_end() {
    let mut client = Client::connect(server().await).await;
    for last in ["0\r\n\r\n", "0\r\nDigest: none\r\n\r\n"] {
        client.send(&dead(CHUNKED)).await.unwrap();
        for _ in 0..16 {
            client.send(&chunk()).await.unwrap();
        }
        client.send(last.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap(), not_found());
    }
    client.send(&modern("hello")).await.unwrap();
    assert_eq!(client.answer().await.unwrap(), ok("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_sending_or_sends_slowly_is_answered_at_once() {
    let addr = server().await;
    for (name, start) in [("silent", ""), ("slow", "x")] {
        let mut client = Client::connect(addr).await;
        let asked = Instant::now();
        client.send(&dead(&length(1000))).await.unwrap();
        client.send(start.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap(), not_found(), "{name}");
        let waited = asked.elapsed();
        println!("{name}: answered after {waited:?}");
        assert!(waited < PROMPT, "{name}: {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_stops_is_cut_off_after_8_mib() {
    let mut client = Client::connect(server().await).await;
    client.send(&dead(CHUNKED)).await.unwrap();
    assert_eq!(client.answer().await.unwrap(), not_found());

    let chunk = chunk();
    let mut sent = 0;
    while sent < 64 * MIB && client.send(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    println!("cut off after {} KiB", sent / KIB);
    assert!(sent >= 8 * MIB, "{sent}");
    assert!(sent < 64 * MIB, "8 MiB, and what the sockets hold");
    client.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trickles_or_falls_silent_is_cut_off_after_5_s() {
    let addr = server().await;
    let cut_off = async |trickle: &[u8]| {
        let mut client = Client::connect(addr).await;
        client.send(&dead(&length(1000))).await.unwrap();
        let asked = Instant::now();
        assert_eq!(client.answer().await.unwrap(), not_found());
        while client.is_open_for(Duration::from_secs(1)).await {
            assert!(asked.elapsed() < 3 * MAX_TIME, "never cut off");
            // A failure shows at the next look.
            let _ = client.send(trickle).await;
        }
        asked.elapsed()
    };
    let (trickling, silent) = tokio::join!(cut_off(b"x"), cut_off(b""));
    println!("cut off: trickling after {trickling:?}, silent after {silent:?}");
    for waited in [trickling, silent] {
        assert!(waited > MAX_TIME - PROMPT, "{waited:?}");
        assert!(waited < 2 * MAX_TIME, "{waited:?}");
    }
}

/// All tails but the last are streams of a few HTTP/2 connections: many systems do not give 1,024
/// sockets to a process.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_1024_unfinished_bodies_a_connection_is_answered_then_closed() {
    let addr = server().await;
    let held = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..11 {
        let h2 = Http2::connect(addr).await;
        let answers = join_all((0..93).map(|_| post_dead(&h2, stream::pending()))).await;
        assert!(answers.iter().all(|answer| *answer == not_found()));
        connections.push(h2);
    }

    let mut last = Client::connect(addr).await;
    last.send(&dead(&length(1000))).await.unwrap();
    assert_eq!(last.answer().await.unwrap(), not_found());
    assert!(last.is_open_for(PROMPT).await, "the 1,024th has room");

    let mut next = Client::connect(addr).await;
    next.send(&dead(&length(1000))).await.unwrap();
    assert_eq!(next.answer().await.unwrap(), not_found());
    next.closed().await;
    let waited = held.elapsed();
    assert!(waited < MAX_TIME, "too slow to tell: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_held_back_for_100_continue_is_not_asked_for_nor_waited_for() {
    let addr = server().await;
    for expect in ["100-continue", "100-Continue"] {
        let mut client = Client::connect(addr).await;
        let expect = format!("Expect: {expect}\r\n{}", length(1000));
        client.send(&dead(&expect)).await.unwrap();
        assert_eq!(client.answer().await.unwrap(), not_found());

        // Having its answer, the client keeps the body to itself. Its next request may be answered
        // or find the connection closed. It must not be swallowed for the body.
        let _ = client.send(&modern("hello")).await;
        let next = timeout(MAX_TIME / 2, client.answer()).await;
        if let Ok(answer) = next.expect("eaten silently") {
            assert_eq!(answer, ok("hello"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_bodies_are_taken_to_their_end_and_the_connection_stays() {
    let h2 = Http2::connect(server().await).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let answers = join_all((0..8).map(|_| {
        let taken = taken.clone();
        let frames = stream::iter(0..MIB / (16 * KIB)).map(move |_| {
            taken.fetch_add(16 * KIB, Relaxed);
            Bytes::from_static(&[b'x'; 16 * KIB])
        });
        post_dead(&h2, frames)
    }))
    .await;
    assert!(answers.iter().all(|answer| *answer == not_found()));

    let all = async {
        while taken.load(Relaxed) < 8 * MIB {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let all = timeout(MAX_TIME, all).await;
    assert!(all.is_ok(), "{} bytes taken", taken.load(Relaxed));

    let hello = stream::iter([Bytes::from("hello")]);
    assert_eq!(
        post(&h2, "mcp-protocol-version", "2026-07-28", hello).await,
        ok("hello")
    );
}

/// The refused body looks like a request, to show that it is not taken for one.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let mut client = Client::connect(server().await).await;
    let trap = modern("trapped").repeat(1000);
    let mut pipeline = Vec::new();
    for nth in 0..10 {
        pipeline.extend(dead(&length(trap.len())));
        pipeline.extend(&trap);
        pipeline.extend(modern(&nth.to_string()));
    }
    client.send(&pipeline).await.unwrap();
    for nth in 0..10 {
        assert_eq!(client.answer().await.unwrap(), not_found());
        assert_eq!(client.answer().await.unwrap(), ok(&nth.to_string()));
    }
}

/// A client that is told 404 where it has to be.
struct Client(Http1);

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        Self(Http1::connect(addr).await)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).await
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let reply = self.0.reply().await?;
        assert!(reply.is_whole, "{reply:?}");
        Ok((reply.status, reply.body))
    }

    async fn is_open_for(&mut self, time: Duration) -> bool {
        self.0.is_open_for(time).await
    }

    async fn closed(&mut self) {
        assert!(!self.is_open_for(MAX_TIME / 2).await, "still open");
    }
}

async fn post_dead<S>(h2: &Http2, frames: S) -> Answer
where
    S: Stream<Item = Bytes> + Send + Sync + 'static,
{
    let id = Uuid::new_v4().to_string();
    post(h2, "mcp-session-id", &id, frames).await
}

async fn post<S>(h2: &Http2, name: &str, value: &str, frames: S) -> Answer
where
    S: Stream<Item = Bytes> + Send + Sync + 'static,
{
    let head = http::Request::post("http://mcp.test/mcp").header(name, value);
    let reply = h2.send(head.body(()).unwrap(), frames).await.unwrap();
    assert!(reply.is_whole, "{reply:?}");
    (reply.status, reply.body)
}

type Answer = (u16, String);

fn not_found() -> Answer {
    (404, NOT_FOUND.to_owned())
}

fn ok(body: &str) -> Answer {
    (200, body.to_owned())
}

/// The head of a request for a session that nobody has.
fn dead(headers: &str) -> Vec<u8> {
    let id = Uuid::new_v4();
    format!("POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nMcp-Session-Id: {id}\r\n{headers}\r\n").into()
}

/// A request of a revision without sessions, which is let through.
fn modern(body: &str) -> Vec<u8> {
    let length = length(body.len());
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    format!("POST /mcp HTTP/1.1\r\nHost: mcp.test\r\n{version}{length}\r\n{body}").into()
}

fn length(bytes: usize) -> String {
    format!("Content-Length: {bytes}\r\n")
}

/// 64 KiB.
fn chunk() -> Vec<u8> {
    let data = "x".repeat(64 * KIB);
    format!("{:x}\r\n{data}\r\n", data.len()).into()
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// How long a body is swallowed.
const MAX_TIME: Duration = Duration::from_secs(5);
/// 100 ms is promised; a busy machine gets some more.
const PROMPT: Duration = Duration::from_millis(500);
