//! Bodies that must be read to decide: their limits, and what is not taken for an `initialize` request.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use mcp_session_layer::{MemoryStore, Rejection, RejectionKind};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    inner::{Inner, json, with_ids},
    setup::{guard, over},
    support::{
        answers::{NO_SESSION, id_of, send},
        requests::{INITIALIZE, initialize, post, request},
        sessions::is_live,
    },
};

const KIB: usize = 1 << 10;

fn padded(len: usize) -> Vec<u8> {
    let mut body = INITIALIZE.as_bytes().to_vec();
    body.resize(len, b' ');
    body
}

fn in_pieces(body: &[u8]) -> Body {
    let pieces: Vec<_> = body.chunks(1000).map(<[u8]>::to_vec).collect();
    Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>))
}

fn too_large(limit: usize) -> String {
    format!(
        "Request body too large: the Mcp-Session-Id header is missing, and without it only an initialize request of at \
         most {limit} bytes is accepted"
    )
}

#[tokio::test(start_paused = true)]
async fn a_body_that_must_be_read_has_64_kib_unless_set() {
    for (set, limit) in [
        (None, 64 * KIB),
        (Some(1000), 1000),
        (Some(300 * KIB), 300 * KIB),
        (Some(usize::MAX), 16 << 20),
    ] {
        let inner = Inner::silent();
        let mut layer = over(&MemoryStore::new());
        if let Some(limit) = set {
            layer = layer.with_body_limit(limit);
        }
        let service = layer.layer(inner.clone());
        let largest = padded(limit);
        for body in [Body::from(largest.clone()), in_pieces(&largest)] {
            let answer = send(&service, request("POST").body(body).unwrap()).await;
            assert_eq!(answer.status, 200);
            assert!(inner.calls()[0].body == largest, "not as it was sent");
        }
        let longer = padded(limit + 1);
        for body in [Body::from(longer.clone()), in_pieces(&longer)] {
            let answer = send(&service, request("POST").body(body).unwrap()).await;
            // The budget is spent by then.
            if limit == 16 << 20 && answer.status == 503 {
                continue;
            }
            answer.assert_refused(RejectionKind::BodyTooLarge, 413, &too_large(limit));
            assert!(inner.calls().is_empty());
        }
    }
}

/// Always ready with nothing. It gives up when nobody else could run for long.
fn endless() -> Body {
    let mut polls = 0;
    Body::from_stream(stream::repeat_with(move || {
        polls += 1;
        assert!(polls < 1_000_000, "nobody else runs");
        Ok::<_, Infallible>("")
    }))
}

/// Of the client and of the inner service. The clock goes on only if others run meanwhile.
#[tokio::test(start_paused = true)]
async fn a_body_without_end_that_is_always_ready_keeps_nobody_from_running() {
    let others = || {
        tokio::spawn(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_secs(10)).await;
        })
    };
    let inner = Inner::new(|_| {
        let mut response = json(200, "");
        *response.body_mut() = endless();
        with_ids(response, &["theirs"])
    });
    let (store, service) = guard(&inner);
    let ran = others();
    let request = request("POST").body(endless()).unwrap();
    let answer = send(&service, request).await;
    answer.assert_refused(RejectionKind::BodyTimeout, 408, "Request body too slow");
    ran.await.unwrap();

    // An answer that cannot be looked at in time goes out as it comes.
    let ran = others();
    let Ok(response) = service.clone().oneshot(initialize()).await;
    assert_eq!(id_of(&response).as_deref(), Some("theirs"));
    assert!(is_live(&store, "theirs").await);
    ran.await.unwrap();

    let inner = Inner::new(|_| {
        let mut response = json(404, "");
        *response.body_mut() = endless();
        response
    });
    let service = over(&store).layer(inner);
    let ran = others();
    let Ok(response) = service.clone().oneshot(post("theirs")).await;
    assert_eq!(response.status(), 404);
    ran.await.unwrap();
}

/// As a client's icon may be.
#[tokio::test(start_paused = true)]
async fn an_initialize_with_a_large_icon_needs_a_higher_limit() {
    let icon = format!("data:image/png;base64,{}", "A".repeat(70_000));
    let body = INITIALIZE.replace(
        r#""name":"probe""#,
        &format!(r#""name":"probe","icons":[{{"src":"{icon}"}}]"#),
    );
    let initialize = || request("POST").body(Body::from(body.clone())).unwrap();
    let inner = Inner::issuing(&["theirs"]);
    let (_, service) = guard(&inner);
    send(&service, initialize()).await.assert_refused(
        RejectionKind::BodyTooLarge,
        413,
        &too_large(64 * KIB),
    );

    let layer = over(&MemoryStore::new()).with_body_limit(128 * KIB);
    let service = layer.with_initialize_params().layer(inner.clone());
    let answer = send(&service, initialize()).await;
    assert_eq!((answer.status, &*answer.id()), (200, "theirs"));
    assert_eq!(inner.calls()[0].body, body);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_must_be_read_has_ten_seconds() {
    let inner = Inner::silent();
    let (_, service) = guard(&inner);
    let start = Instant::now();
    let first = stream::iter([Ok::<_, Infallible>(INITIALIZE)]);
    let body = Body::from_stream(first.chain(stream::pending()));
    let answer = send(&service, request("POST").body(body).unwrap()).await;
    answer.assert_refused(RejectionKind::BodyTimeout, 408, "Request body too slow");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(inner.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_400() {
    let inner = Inner::silent();
    let (_, service) = guard(&inner);
    let body = stream::iter([Ok(INITIALIZE), Err(std::io::Error::other("gone"))]);
    let request = request("POST").body(Body::from_stream(body)).unwrap();
    send(&service, request).await.assert_refused(
        RejectionKind::BodyUnreadable,
        400,
        "Request body could not be read",
    );
    assert!(inner.calls().is_empty());
}

/// Two readers could see two requests in it; so it never creates a session, and its sender is told why.
#[tokio::test(start_paused = true)]
async fn what_a_strict_parser_refuses_is_400_and_says_so() {
    let inner = Inner::silent();
    let (_, service) = guard(&inner);
    let with = |member: &str| INITIALIZE.replacen('{', &format!("{{{member},"), 1);
    let deep = format!(r#""x":{}{}"#, "[".repeat(200), "]".repeat(200));
    let utf16 = INITIALIZE.encode_utf16().flat_map(u16::to_le_bytes);
    let table: [(Vec<u8>, &str); 13] = [
        (
            format!("\u{feff}{INITIALIZE}").into(),
            "it begins with a byte order mark",
        ),
        (
            [0xFF, 0xFE].into_iter().chain(utf16.clone()).collect(),
            "it begins with a byte order mark",
        ),
        (utf16.collect(), "key must be a string"),
        (format!("{INITIALIZE}{INITIALIZE}").into(), "trailing"),
        (format!("{INITIALIZE}\0").into(), "trailing"),
        (b"hello".to_vec(), "expected value"),
        (with(r#""id":2"#).into(), "a key twice"),
        (with(r#""m\u0065thod":"ping""#).into(), "a key twice"),
        (with(r#""x":{"a":[{"b":1,"b":1}]}"#).into(), "a key twice"),
        (with(r#""x":-1e400"#).into(), "number out of range"),
        (with(r#""x":"\ud800""#).into(), "unexpected end of hex"),
        (with(&deep).into(), "recursion limit exceeded"),
        (
            b"{\"method\":\"initialize\",\"id\":1,\"x\":\"\xff\"}".to_vec(),
            "invalid unicode",
        ),
    ];
    for (body, why) in table {
        let shown = body.escape_ascii().to_string();
        let answer = send(&service, request("POST").body(body.into()).unwrap()).await;
        let text = answer.body.clone();
        answer.assert_refused(RejectionKind::BodyNotJson, 400, &text);
        let why_not = text.strip_prefix("Request body is not valid JSON: ");
        assert!(
            why_not.is_some_and(|it| it.starts_with(why)),
            "{shown}: {text}"
        );
        assert_eq!(
            answer.rejection.as_ref().and_then(Rejection::request_id),
            None
        );
        assert!(inner.calls().is_empty(), "{shown}");
    }
    // It is JSON, and no message.
    let answer = send(&service, request("POST").body("[1e4]".into()).unwrap()).await;
    answer.assert_refused(RejectionKind::MissingSession, 400, NO_SESSION);
}
