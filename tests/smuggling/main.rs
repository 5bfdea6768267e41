//! Requests that two readers could read in two ways, over real sockets: whatever they look like, no session id reaches the
//! inner service that is not live, and no request hides in another one.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use tokio::io::AsyncWriteExt as _;

use support::{
    answers::NOT_FOUND,
    requests::{INITIALIZE, PING},
    sockets::serve,
    wire::{Http1, Http2, Reply},
    witness::Witness,
};

#[path = "../support/mod.rs"]
mod support;

mod framing;
mod mixtures;

/// Sends all of it and reads so many answers, then says that there is no more and reads what else comes. (Whoever says so
/// at once may get no answer, for the server takes it for hanging up.)
async fn exchange(addr: SocketAddr, raw: &[u8], answers: usize) -> Vec<Reply> {
    let mut client = Http1::connect(addr).await;
    // The server may have hung up already, after an answer.
    let _: io::Result<()> = client.send(raw).await;
    let mut replies = Vec::new();
    while replies.len() < answers
        && let Ok(reply) = client.reply().await
    {
        replies.push(reply);
    }
    let _: io::Result<()> = client.0.get_mut().shutdown().await;
    while let Ok(reply) = client.reply().await {
        replies.push(reply);
    }
    replies
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

/// A request with these lines in its head, and a body of known length.
fn raw(target: &str, lines: &[&str], body: &str) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: mcp.test\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
    )
    .into()
}

const DEAD_LINE: &str = "Mcp-Session-Id: dead";
const LIVE_LINE: &str = "Mcp-Session-Id: live";

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    // The lines, the status, and whether the service is called.
    let table: [(&[&str], u16, bool); 27] = [
        (&[LIVE_LINE], 200, true),
        (&["mCP-sESSION-iD: live"], 200, true),
        (&["Mcp-Session-Id:live\t"], 200, true),
        (&[DEAD_LINE], 404, false),
        (&["MCP-SESSION-ID:dead"], 404, false),
        (&[LIVE_LINE, LIVE_LINE], 400, false),
        (&[LIVE_LINE, DEAD_LINE], 400, false),
        (&[DEAD_LINE, LIVE_LINE], 400, false),
        (&["Mcp-Session-Id:", DEAD_LINE], 400, false),
        (&["Mcp-Session-Id: live, dead"], 404, false),
        (&["Mcp-Session-Id: live,dead"], 404, false),
        (&["Mcp-Session-Id: live;dead"], 404, false),
        (&["Mcp-Session-Id: \"live\""], 404, false),
        (&["Mcp-Session-Id: %6cive"], 404, false),
        (&["Mcp-Session-Id: LIVE"], 404, false),
        (&["Mcp-Session-Id: =?utf-8?q?live?="], 404, false),
        (&["Mcp-Session-Id: liv\u{e9}"], 404, false),
        (&["Mcp-Session-Id : dead"], 400, false),
        (&["Mcp-Session-Id: li\0ve"], 400, false),
        (&["Mcp-Session-Id: live", " dead"], 400, false),
        (&["X: y", " Mcp-Session-Id: dead"], 400, false),
        (&["Connection: Mcp-Session-Id", DEAD_LINE], 404, false),
        (&["Connection: Mcp-Session-Id", LIVE_LINE], 200, true),
        (&["Mcp_Session_Id: dead"], 400, false),
        (&["X-Mcp-Session-Id: dead"], 400, false),
        (&["MCP-Protocol-Version: 2026-07-28", DEAD_LINE], 200, true),
        (
            &[
                "MCP-Protocol-Version: 2026-07-28",
                "MCP-Protocol-Version: 2025-11-25",
                DEAD_LINE,
            ],
            400,
            false,
        ),
    ];
    for (lines, status, is_called) in table {
        let replies = exchange(addr, &raw("/mcp", lines, PING), 1).await;
        assert_eq!(statuses(&replies), [status], "{lines:?}");
        assert_eq!(witness.seen().len(), usize::from(is_called), "{lines:?}");
        if status == 404 {
            assert_eq!(replies[0].body, NOT_FOUND, "{lines:?}");
        }
    }
}

#[tokio::test]
async fn bodies_that_can_be_read_in_two_ways() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let h2 = Http2::connect(addr).await;
    let utf16: Vec<u8> = INITIALIZE
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let utf7 = "+AHs-+ACI-method+ACI-:+ACI-initialize+ACI-,+ACI-id+ACI-:1+AH0-";
    let bodies: [Vec<u8>; 12] = [
        INITIALIZE
            .replace(r#""id":1"#, r#""id":1,"method":"ping""#)
            .into(),
        INITIALIZE
            .replace(r#""id":1"#, r#""id":1,"\u006dethod":"ping""#)
            .into(),
        INITIALIZE
            .replace(r#""id":1"#, r#""id":1,"id":null"#)
            .into(),
        INITIALIZE.replace(r#""id":1"#, r#""id":1e999"#).into(),
        INITIALIZE.replace("probe", r"\ud800").into(),
        [b"\xef\xbb\xbf", INITIALIZE.as_bytes()].concat(),
        utf16.clone(),
        [&[0xFE, 0xFF], &utf16[..]].concat(),
        utf7.into(),
        format!("{INITIALIZE}{PING}").into(),
        format!("{PING}{INITIALIZE}").into(),
        format!("{INITIALIZE}\0").into(),
    ];
    for body in bodies {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let replies = exchange(addr, &[head.as_bytes(), &body].concat(), 1).await;
        assert_eq!(statuses(&replies), [400], "{}", body.escape_ascii());
        let head = Request::post("http://mcp.test/mcp").body(()).unwrap();
        let reply = h2
            .send(head, stream::iter([Bytes::from(body)]))
            .await
            .unwrap();
        assert_eq!(reply.status, 400);
        assert!(reply.id().is_none());
        assert!(witness.seen().is_empty());
    }
    // Escapes alone are one spelling of the same request.
    let spelled = INITIALIZE.replace("initialize", r"\u0069nitialize");
    let replies = exchange(addr, &raw("/mcp", &[], &spelled), 1).await;
    assert_eq!(statuses(&replies), [200]);
    assert!(replies[0].id().is_some());
}

/// Targets that lead to the service for one reader and elsewhere for another.
const TARGETS: [&str; 23] = [
    "/mcp",
    "/mcp?x=/../y",
    "//mcp",
    "/mcp//",
    "/./mcp",
    "/mcp/..",
    "/mcp/../mcp",
    "/x/../mcp",
    "/%6dcp",
    "/%6Dcp",
    "/mcp%2f",
    "/mcp%00",
    "/mcp;x=1",
    "/x/%2e%2e/mcp",
    "/x%2f..%2fmcp",
    "/%256dcp",
    "/docs/mcp",
    "/docs/../mcp",
    "/docs/%6dcp",
    "/docs//mcp",
    "/mcp/x",
    "/x\\..\\mcp",
    "/x%E9/../mcp",
];

#[tokio::test]
async fn a_dead_id_reaches_the_service_by_no_path() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let h2 = Http2::connect(addr).await;
    for target in TARGETS {
        let absolute = format!("http://mcp.test{target}");
        for target in [target, &absolute] {
            let replies = exchange(addr, &raw(target, &[DEAD_LINE], PING), 1).await;
            assert_eq!(statuses(&replies), [404], "{target}");
            assert!(witness.seen().is_empty(), "{target}");
        }
        let head = Request::post(&absolute).header("mcp-session-id", "dead");
        let Ok(head) = head.body(()) else {
            panic!("{absolute} is no URI");
        };
        let reply = h2
            .send(head, stream::iter([Bytes::from(PING)]))
            .await
            .unwrap();
        assert_eq!((reply.status, &*reply.body), (404, NOT_FOUND), "{target}");
        assert!(witness.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn over_http2_heads_and_bodies_are_judged_alike() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("mcp-session-id", HeaderValue::from_static("dead"));
        trailers
    };
    // Header lines, whether trailers follow, the status if the connection bears it, and whether the service is called.
    type Lines<'a> = &'a [(&'a str, &'a str)];
    let table: [(Lines<'_>, bool, Option<u16>, bool); 9] = [
        (&[("mcp-session-id", "live")], false, Some(200), true),
        (&[("mcp-session-id", "live")], true, Some(200), true),
        (&[("mcp-session-id", "dead")], false, Some(404), false),
        (&[], true, Some(400), false),
        (
            &[("mcp-session-id", "live"), ("mcp-session-id", "dead")],
            false,
            Some(400),
            false,
        ),
        (&[("mcp-session-id", "live, dead")], false, Some(404), false),
        // "An intermediary ... connection-specific header fields ... malformed" (RFC 9113, 8.2.2).
        (
            &[("connection", "mcp-session-id"), ("mcp-session-id", "dead")],
            false,
            None,
            false,
        ),
        // A length that is not the body's (RFC 9113, 8.1.1).
        (
            &[("mcp-session-id", "dead"), ("content-length", "3")],
            false,
            None,
            false,
        ),
        (&[("content-length", "3")], false, None, false),
    ];
    for (lines, has_trailers, status, is_called) in table {
        let h2 = Http2::connect(addr).await;
        let mut head = Request::post("http://mcp.test/mcp");
        for (name, value) in lines {
            head = head.header(*name, *value);
        }
        let mut frames = vec![Frame::data(Bytes::from(PING))];
        if has_trailers {
            frames.push(Frame::trailers(trailers()));
        }
        let reply = h2
            .send_frames(head.body(()).unwrap(), stream::iter(frames))
            .await;
        match (status, reply) {
            (Some(status), Ok(reply)) => assert_eq!(reply.status, status, "{lines:?}"),
            (Some(_), Err(error)) => panic!("{lines:?}: {error}"),
            // Whatever the client's side or the server's makes of it.
            (None, Ok(reply)) => {
                assert!([400, 404].contains(&reply.status), "{lines:?}: {reply:?}");
            }
            (None, Err(_)) => {}
        }
        assert_eq!(witness.seen().len(), usize::from(is_called), "{lines:?}");
    }
}
