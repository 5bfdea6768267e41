//! Where a request ends: lengths, chunks, trailers, and bodies that are held back.

use crate::{
    DEAD_LINE, LIVE_LINE, exchange, raw, statuses,
    support::{
        answers::NOT_FOUND,
        requests::{INITIALIZE, PING},
        sockets::serve,
        wire::Http1,
        witness::{LIVE, Witness},
    },
};

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Where a body ends is where the next request begins, for everybody.
#[tokio::test]
async fn no_request_hides_in_another_one() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let hidden = String::from_utf8(raw("/mcp", &[DEAD_LINE], PING)).unwrap();
    let head = |lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("POST /mcp HTTP/1.1\r\nHost: mcp.test\r\n{lines}\r\n")
    };
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n0\r\n\r\n", data.len());
    let longer = format!("Content-Length: {}", PING.len() + hidden.len());
    let exact = format!("Content-Length: {}", PING.len());
    let signed = format!("Content-Length: +{}", PING.len());
    // What is sent, the statuses of all answers, and how often the service is called.
    let table: Vec<(&str, String, Vec<u16>, usize)> = vec![
        (
            "in a body as long as is said",
            head(&[LIVE_LINE, &longer]) + PING + &hidden,
            vec![200],
            1,
        ),
        (
            "after a body as long as is said",
            head(&[LIVE_LINE, &exact]) + PING + &hidden,
            vec![200, 404],
            1,
        ),
        (
            "in a refused body",
            head(&[DEAD_LINE, &longer]) + PING + &hidden,
            vec![404],
            0,
        ),
        (
            "in a chunk",
            head(&[LIVE_LINE, CHUNKED]) + &chunk(&hidden),
            vec![200],
            1,
        ),
        (
            "after the last chunk",
            head(&[LIVE_LINE, CHUNKED]) + &chunk(PING) + &hidden,
            vec![200, 404],
            1,
        ),
        (
            "after the last chunk of a refused body",
            head(&[DEAD_LINE, CHUNKED]) + &chunk(PING) + &hidden,
            vec![404, 404],
            0,
        ),
        (
            "behind a body with two lengths",
            head(&[LIVE_LINE, &exact, "Content-Length: 0"]) + PING + &hidden,
            vec![400],
            0,
        ),
        (
            "behind a signed length",
            head(&[LIVE_LINE, &signed]) + PING + &hidden,
            vec![400],
            0,
        ),
        (
            "behind a list of lengths",
            head(&[LIVE_LINE, "Content-Length: 0, 5"]) + PING + &hidden,
            vec![400],
            0,
        ),
        (
            "behind an encoding nobody knows",
            head(&[LIVE_LINE, "Transfer-Encoding: xchunked"]) + &chunk(PING) + &hidden,
            vec![400],
            0,
        ),
        (
            "behind chunked that is not the last encoding",
            head(&[LIVE_LINE, "Transfer-Encoding: chunked, identity"]) + &chunk(PING) + &hidden,
            vec![400],
            0,
        ),
        (
            "in a chunk's extension",
            head(&[LIVE_LINE, CHUNKED]) + "1;x=\"\r\n0\r\n\r\n" + &hidden + "\"\r\nx\r\n0\r\n\r\n",
            vec![200],
            1,
        ),
    ];
    for (name, sent, expected, called) in table {
        let replies = exchange(addr, sent.as_bytes(), expected.len()).await;
        assert_eq!(statuses(&replies), expected, "{name}: {replies:?}");
        assert_eq!(witness.seen().len(), called, "{name}");
    }
}

/// A length and chunks: the length counts for nobody (RFC 9112, 6.1), so both requests are read, and judged.
#[tokio::test]
async fn a_length_beside_chunks_counts_for_nobody() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let hidden = String::from_utf8(raw("/mcp", &[DEAD_LINE], PING)).unwrap();
    for length in [0, 4, 10_000] {
        let length = format!("Content-Length: {length}");
        for lines in [[&*length, CHUNKED], [CHUNKED, &length]] {
            let lines = format!("{LIVE_LINE}\r\n{}\r\n{}\r\n", lines[0], lines[1]);
            let sent =
                format!("POST /mcp HTTP/1.1\r\nHost: mcp.test\r\n{lines}\r\n0\r\n\r\n{hidden}");
            let replies = exchange(addr, sent.as_bytes(), 1).await;
            for request in witness.seen() {
                assert_eq!(request.headers()["mcp-session-id"], LIVE);
                assert!(request.body().is_empty(), "{request:?}");
            }
            let last = replies.last().expect("an answer");
            assert!([200, 400, 404].contains(&last.status), "{replies:?}");
        }
    }
}

#[tokio::test]
async fn trailers_name_no_session() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    let trailing = |line: &str, body: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nTE: trailers\r\nTrailer: Mcp-Session-Id\r\n{CHUNKED}\r\n\r\n{:x}\r\n\
             {body}\r\n0\r\n{line}\r\n\r\n",
            body.len()
        )
    };
    for line in [DEAD_LINE, LIVE_LINE] {
        let replies = exchange(addr, trailing(line, PING).as_bytes(), 1).await;
        assert_eq!(statuses(&replies), [400]);
        assert!(witness.seen().is_empty());
        let replies = exchange(addr, trailing(line, INITIALIZE).as_bytes(), 1).await;
        assert_eq!(statuses(&replies), [200]);
        assert_eq!(witness.seen()[0].body(), INITIALIZE);
    }
}

/// The body is asked for where it decides, and only there.
#[tokio::test]
async fn a_body_held_back_is_asked_for_if_it_decides() {
    let (witness, app) = Witness::app().await;
    let addr = serve(app).await;
    for (id, continues) in [(None, true), (Some(DEAD_LINE), false)] {
        let mut client = Http1::connect(addr).await;
        let id = id.map(|id| format!("{id}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nExpect: 100-continue\r\n{id}Content-Length: {}\r\n\r\n",
            INITIALIZE.len()
        );
        client.send(head.as_bytes()).await.unwrap();
        if continues {
            client.is_told_to_continue().await;
            client.send(INITIALIZE.as_bytes()).await.unwrap();
            assert_eq!(client.reply().await.unwrap().status, 200);
            assert_eq!(witness.seen()[0].body(), INITIALIZE);
        } else {
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, &*reply.body), (404, NOT_FOUND));
            assert!(witness.seen().is_empty());
        }
    }
}
