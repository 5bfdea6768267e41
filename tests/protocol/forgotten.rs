//! Whether the inner service has forgotten a session: what raises the suspicion, what is asked, and what the answer means.

use axum::body::Body;
use http::{HeaderName, Response, StatusCode};
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind};
use tokio::time::sleep;
use tower::Layer as _;

use crate::{
    inner::{Inner, byte_by_byte, json, plain},
    setup::{guard, over, plant},
    support::{
        answers::{RESULT, question_of, send},
        requests::{on, post, with_header},
        sessions::{is_live, owner},
        time::{MINUTE, SECOND, settled},
    },
};

/// What the inner service answers to the question with this id.
type Reply = fn(&str) -> Response<Body>;

fn error(status: u16, id: &str, code: i32) -> Response<Body> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":""}}}}"#);
    json(status, &body)
}

fn quoted(id: &str) -> String {
    format!("{id:?}")
}

fn events(data: &str) -> Response<Body> {
    let stream = format!("id: 1\ndata:\n\n: hello\n\nevent: message\ndata: {data}\n\n");
    let mut response = Response::new(byte_by_byte(stream.as_bytes()));
    let kind = "text/event-stream; charset=utf-8".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id:?},"result":{{}}}}"#)
}

/// Never ends.
fn endless(piece: &'static str) -> Body {
    Body::from_stream(futures_util::stream::repeat_with(move || {
        Ok::<_, std::convert::Infallible>(piece)
    }))
}

const LIVES: &[(&str, Reply)] = &[
    ("a result", |id| json(200, &result(id))),
    ("whatever the status", |id| json(404, &result(id))),
    ("whatever the content type", |id| plain(200, &result(id))),
    ("in an event", |id| events(&result(id))),
    ("no ping", |id| error(200, &quoted(id), -32601)),
    ("no ping, 400", |id| error(400, &quoted(id), -32601)),
    ("no ping, 404", |id| error(404, &quoted(id), -32601)),
];

const FORGOTTEN: &[(&str, Reply)] = &[
    ("plain", |_| plain(404, "Session not found")),
    ("nothing", |_| plain(400, "")),
    ("no id", |_| error(400, "null", -32000)),
    ("an id of its own", |_| {
        error(404, "\"server-error\"", -32600)
    }),
    ("echoed", |id| error(404, &quoted(id), -32001)),
    ("an internal error", |id| error(404, &quoted(id), -32603)),
    ("another's", |_| error(404, "7", -32601)),
    ("an event", |_| {
        let mut response = events("{}");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }),
];

const UNDECIDED: &[(&str, Reply)] = &[
    ("an error", |id| error(200, &quoted(id), -32603)),
    ("a result for another", |_| json(200, RESULT)),
    ("401", |_| plain(401, "")),
    ("403", |_| plain(403, "")),
    ("405", |_| plain(405, "")),
    ("500", |_| plain(500, "")),
    ("502", |_| plain(502, "")),
    ("too long", |_| json(404, &"x".repeat(100_000))),
    ("endless", |_| {
        let mut response = plain(404, "");
        *response.body_mut() =
            endless("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        response
    }),
    ("endless events", |_| {
        let mut response = events("");
        *response.body_mut() =
            endless(": still here, and here, and here, and here, and here, and here\n\n");
        response
    }),
    ("silent events", |_| {
        let mut response = events("");
        *response.body_mut() = Body::from_stream(futures_util::stream::pending::<
            Result<&str, std::convert::Infallible>,
        >());
        response
    }),
];

#[tokio::test(start_paused = true)]
async fn what_the_answer_to_the_question_means() {
    for (answers, is_forgotten) in [(LIVES, false), (FORGOTTEN, true), (UNDECIDED, false)] {
        for (name, reply) in answers {
            for status in [400, 404, 422, 500] {
                let inner = Inner::new(move |_| json(status, "no"))
                    .questioned(move |call| reply(&question_of(&call.body).unwrap()));
                let (store, service) = guard(&inner);
                plant(&store, "live", owner(None), Issuer::Inner).await;
                for method in ["POST", "GET", "PUT"] {
                    let answer = send(&service, on("live", method)).await;
                    if is_forgotten {
                        answer.assert_not_found(RejectionKind::InnerGone);
                    } else {
                        assert_eq!((answer.status, &*answer.body), (status, "no"), "{name}");
                        assert_eq!(answer.kind(), None, "{name}");
                    }
                }
                assert_eq!(inner.questions().await.len(), 1, "{name}: one for all");
                assert!(is_live(&store, "live").await, "nobody is believed");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_question_is_sent_as_the_session_was_served() {
    let inner = Inner::new(|call| match call.method.as_str() {
        "PUT" => plain(404, ""),
        _ => json(200, RESULT),
    });
    let store = MemoryStore::new();
    let service = over(&store)
        .with_credentials([HeaderName::from_static("x-signature")])
        .layer(inner.clone());
    plant(&store, "live", owner(None), Issuer::Inner).await;
    let mut first = with_header(post("live"), "host", "example.org");
    first = with_header(first, "mcp-protocol-version", "2025-06-18");
    *first.uri_mut() = "/mcp/here?key=1".parse().unwrap();
    assert_eq!(send(&service, first).await.status, 200);
    // The service is tried out once, with the first request that it served.
    let tried = inner.questions().await;
    assert_eq!(tried.len(), 1);
    assert_eq!(tried[0].uri, "/mcp/here?key=1");

    // A request that goes somewhere else is no measure.
    let mut second = with_header(on("live", "PUT"), "authorization", "Bearer x");
    for (name, value) in [
        ("cookie", "a=b"),
        ("x-api-key", "k"),
        ("proxy-authorization", "p"),
        ("x-signature", "s"),
        ("x-other", "o"),
        ("host", "elsewhere"),
    ] {
        second = with_header(second, name, value);
    }
    *second.uri_mut() = "/mcp/nowhere?key=2".parse().unwrap();
    sleep(MINUTE).await;
    assert_eq!(send(&service, second).await.status, 404);
    let asked = inner.questions().await;
    assert_eq!(asked.len(), 1);
    let question = &asked[0];
    assert_eq!(
        (question.method.as_str(), question.id().as_str()),
        ("POST", "live")
    );
    assert_eq!(question.uri, "/mcp/here?key=2");
    assert!(question.session.is_some());
    for (name, value) in [
        ("host", "example.org"),
        ("mcp-protocol-version", "2025-06-18"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-api-key", "k"),
        ("proxy-authorization", "p"),
        ("x-signature", "s"),
    ] {
        assert_eq!(question.headers[name], value);
    }
    assert!(!question.headers.contains_key("x-other"));
    assert_ne!(
        question_of(&question.body),
        question_of(&tried[0].body),
        "at random"
    );
}

#[tokio::test(start_paused = true)]
async fn what_raises_no_suspicion() {
    for (name, status, issuer, set) in [
        ("a success", 200, Issuer::Inner, None),
        ("another failure", 403, Issuer::Inner, None),
        ("an outage", 502, Issuer::Inner, None),
        ("an id of the layer's own", 404, Issuer::Layer, None),
        ("turned off", 404, Issuer::Inner, Some(vec![])),
        (
            "not in the list",
            404,
            Issuer::Inner,
            Some(vec![StatusCode::GONE]),
        ),
    ] {
        let inner = Inner::new(move |_| plain(status, "no")).questioned(|_| plain(404, ""));
        let store = MemoryStore::new();
        let mut layer = over(&store).with_issued_ids_forwarded();
        if let Some(statuses) = set {
            layer = layer.with_forgotten_statuses(statuses);
        }
        let service = layer.layer(inner.clone());
        plant(&store, "live", owner(None), issuer).await;
        let methods: &[&str] = match status {
            // The inner service would be tried out, and the DELETE would be done.
            200 => &[],
            _ => &["POST", "GET", "DELETE"],
        };
        for method in methods {
            let answer = send(&service, on("live", method)).await;
            assert_eq!((answer.status, &*answer.body), (status, "no"), "{name}");
        }
        assert!(inner.questions().await.is_empty(), "{name}");
        assert!(is_live(&store, "live").await, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_of_the_list_raises_it() {
    let inner = Inner::new(|_| plain(410, "no")).questioned(|_| plain(404, ""));
    let store = MemoryStore::new();
    let service = over(&store)
        .with_forgotten_statuses([StatusCode::GONE])
        .layer(inner);
    plant(&store, "live", owner(None), Issuer::Inner).await;
    let answer = send(&service, post("live")).await;
    answer.assert_not_found(RejectionKind::InnerGone);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_understand_the_question_is_not_asked() {
    for (name, reply) in FORGOTTEN.iter().chain(UNDECIDED) {
        let inner = Inner::new(|call| match call.method.as_str() {
            "PUT" => plain(404, "bad"),
            _ => json(200, RESULT),
        })
        .questioned(move |call| reply(&question_of(&call.body).unwrap()));
        let (store, service) = guard(&inner);
        // Where no answer came the next session is another try.
        let ids = ["first", "second", "third", "fourth"];
        for id in ids {
            plant(&store, id, owner(None), Issuer::Inner).await;
            assert_eq!(send(&service, post(id)).await.status, 200);
            sleep(5 * SECOND).await;
        }
        let tries = inner.questions().await.len();
        let is_certain = !matches!(*name, "500" | "502" | "silent events");
        assert_eq!(tries, if is_certain { 1 } else { 3 }, "{name}");
        for id in ids {
            let answer = send(&service, on(id, "PUT")).await;
            assert_eq!((answer.status, &*answer.body), (404, "bad"), "{name}");
        }
        assert!(inner.questions().await.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_tried_out_with_a_session_that_lives() {
    let inner = Inner::slow(|call| {
        let (method, body) = (call.method.clone(), call.body.clone());
        Box::pin(async move {
            match question_of(&body) {
                // It looks for the session when that has been ended.
                Some(_) => {
                    sleep(SECOND).await;
                    plain(404, "")
                }
                None if method == "DELETE" => plain(204, ""),
                None => json(200, RESULT),
            }
        })
    });
    let inner = inner.questioned_as_others();
    let (store, service) = guard(&inner);
    for id in ["first", "second"] {
        plant(&store, id, owner(None), Issuer::Inner).await;
        assert_eq!(send(&service, post(id)).await.status, 200);
        settled().await;
        assert_eq!(send(&service, on(id, "DELETE")).await.status, 204);
        sleep(2 * SECOND).await;
        assert_eq!(inner.questions().await.len(), 1, "{id}: it does not count");
    }
}
