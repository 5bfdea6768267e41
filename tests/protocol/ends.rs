//! What the layer sends inward by itself when a session ends: what it carries, and what the answer means.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::{Router, body::Body, extract::Request, response::Response, routing};
use http::{HeaderName, Method, header::AUTHORIZATION};
use mcp_session_layer::{InnerContext, MemoryStore, RejectionKind};
use tokio::time::sleep;
use tower::Layer as _;

use crate::{
    inner::{Claims, Inner, json, plain, with_ids},
    setup::{create, guard, over},
    support::{
        answers::{RESULT, send},
        log::Log,
        requests::{INITIALIZE, initialize, post, with_header},
        sessions::reference,
        store::{AWAY, TestStore},
        time::{HOUR, MINUTE, settled},
    },
};

const MISUNDERSTOOD: &str = "did not understand the DELETE";

/// Answers every DELETE like this.
fn ending(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Inner {
    Inner::new(move |call| match call.method {
        Method::DELETE => answer(),
        _ => with_ids(json(200, RESULT), &["theirs"]),
    })
}

fn events(status: u16) -> Response<Body> {
    let mut response = plain(status, "data: {}\n\n");
    let value = "text/event-stream".parse().unwrap();
    response.headers_mut().insert("content-type", value);
    response
}

/// As the TypeScript SDK's servers answer, to a POST and to others.
const NO_VALID_ID: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#;
const NOT_INITIALIZED: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;
const PARSE_ERROR: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}"#;

#[tokio::test(start_paused = true)]
async fn what_the_answer_to_a_delete_means() {
    type Answer = fn() -> Response<Body>;
    let long = || plain(200, &" ".repeat(100_000));
    let table: [(&str, Answer, bool, bool); 18] = [
        ("204", || plain(204, ""), true, false),
        ("200", || plain(200, ""), true, false),
        ("202 and text", || plain(202, "accepted"), true, false),
        ("200 and a result", || json(200, RESULT), true, false),
        ("200 and more than is read", long, true, false),
        ("404", || plain(404, "no session"), true, false),
        ("405", || plain(405, "no DELETE here"), true, false),
        ("400 of their POST", || json(400, NO_VALID_ID), true, false),
        (
            "400 of their others",
            || plain(400, "Invalid or missing session ID"),
            true,
            false,
        ),
        ("400 new", || json(400, NOT_INITIALIZED), true, false),
        ("400 other", || json(400, PARSE_ERROR), false, false),
        ("200 and an error", || json(200, PARSE_ERROR), false, false),
        (
            "200 and an error with an id",
            || json(200, r#"{"id":1,"error":{"code":-32600,"message":""}}"#),
            false,
            false,
        ),
        ("200 and events", || events(200), false, false),
        ("401", || plain(401, ""), false, false),
        ("403", || plain(403, ""), false, false),
        ("302", || plain(302, ""), false, false),
        ("503", || plain(503, ""), false, true),
    ];
    for (name, answer, is_understood, is_repeated) in table {
        let log = Log::default();
        let _listening = log.listen();
        let inner = ending(answer);
        let layer = over(&MemoryStore::new());
        let service = layer.layer(inner.clone());
        create(&service, &inner).await;
        layer.sessions().end_all().await.unwrap();
        sleep(2 * HOUR).await;
        let tells = inner.told().await.len();
        assert_eq!(tells > 1, is_repeated, "{name}: told {tells} times");
        let said = log.take_lines(MISUNDERSTOOD);
        assert_eq!(said.len(), usize::from(!is_understood), "{name}: {said:?}");
        for line in said {
            assert!(line.contains(" WARN "), "{line}");
            assert!(line.contains("`with_inner`"), "{line}");
            assert!(line.contains("`with_inner_context`"), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_no_success() {
    let inner = ending(|| {
        let pieces = [Ok("{"), Err(std::io::Error::other("reset"))];
        Response::new(Body::from_stream(futures_util::stream::iter(pieces)))
    });
    let layer = over(&MemoryStore::new());
    let service = layer.layer(inner.clone());
    create(&service, &inner).await;
    layer.sessions().end_all().await.unwrap();
    sleep(MINUTE).await;
    assert!(inner.told().await.len() > 2);
}

/// Under `Router::layer` the DELETE reaches another method's handler, which must not be taken for a success.
#[tokio::test(start_paused = true)]
async fn a_layer_over_method_handlers_is_said_once() {
    const PART: &str = "axum's routes one by one";
    async fn post(request: Request) -> Response<Body> {
        match request.method() {
            &Method::POST => with_ids(json(200, RESULT), &["theirs"]),
            _ => json(200, PARSE_ERROR),
        }
    }
    let mcp: Router = Router::new().route("/mcp", routing::post(post).delete(async || ()));
    let log = Log::default();
    let _listening = log.listen();
    for is_named in [false, true] {
        let mut layer = over(&MemoryStore::new()).with_paths(["/mcp"]);
        if is_named {
            layer = layer.with_inner(mcp.clone());
        }
        // As a server does with it; before that axum makes each handler's service anew for each request.
        let app: Router = mcp.clone().layer(layer.clone()).with_state(());
        assert!(log.take_lines(PART).is_empty(), "nothing is created yet");
        for nth in 0..3 {
            assert_eq!(send(&app, initialize()).await.id(), "theirs");
            let said = log.take_lines(PART);
            assert_eq!(said.len(), usize::from(nth == 0 && !is_named), "{said:?}");
            assert!(said.iter().all(|line| line.contains("`with_inner`")));
            layer.sessions().end_all().await.unwrap();
            settled().await;
            let misunderstood = log.take_lines(MISUNDERSTOOD);
            assert_eq!(misunderstood.len(), usize::from(!is_named));
        }
    }

    // Neither a whole service nor one that gets no DELETE has anything to be told.
    let (_, whole) = guard(&Inner::issuing(&["theirs"]));
    send(&whole, initialize()).await;
    let silent = Router::new().route("/mcp", routing::post(async || json(200, RESULT)));
    let app = silent.layer(over(&MemoryStore::new()).with_paths(["/mcp"]));
    send(&app, initialize()).await;
    assert!(log.take_lines(PART).is_empty());
}

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// From the user with this token, which the authentication in front has looked at.
fn by(token: &'static str, request: Request) -> Request {
    let mut request = with_header(request, "authorization", token);
    request.extensions_mut().insert(Claims(token));
    request
}

/// Everything that the layer sends by itself carries what was kept of the last request that was served.
#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_request_goes_along() {
    let inner = Inner::new(|call| match call.headers.get("x-refuse") {
        Some(_) => plain(401, ""),
        None => with_ids(json(200, RESULT), &["theirs"]),
    });
    let store = MemoryStore::new();
    let layer = over(&store).with_inner_context(|request| {
        InnerContext::new()
            .with_headers_of(request, [AUTHORIZATION, TENANT])
            .with_extension_of::<Claims>(request)
    });
    let service = layer.layer(inner.clone());
    let end = async || {
        layer.sessions().end_all().await.unwrap();
        let tells = inner.tells().await;
        assert_eq!(tells.len(), 1);
        let tell = &tells[0];
        let token = tell.headers["authorization"].to_str().unwrap().to_owned();
        assert_eq!(tell.claims.as_ref().unwrap().0, token);
        assert_eq!(tell.headers["host"], "localhost");
        let session = tell.session.as_ref().unwrap();
        assert_eq!(session.reference(), &reference("theirs"));
        token
    };
    for (served, expected) in [
        (&[][..], "birth"),
        (&["first"], "first"),
        (&["first", "second"], "second"),
    ] {
        send(&service, by("birth", initialize())).await;
        for token in served {
            assert_eq!(send(&service, by(token, post("theirs"))).await.status, 200);
        }
        let refused = with_header(by("thief", post("theirs")), "x-refuse", "1");
        assert_eq!(send(&service, refused).await.status, 401);
        assert_eq!(end().await, expected);
    }
}

/// Sessions that are recorded nowhere are ended in their request's name too.
#[tokio::test(start_paused = true)]
async fn what_is_kept_goes_along_for_what_was_never_recorded() {
    let inner = Inner::new(|call| match call.headers.get("mcp-session-id") {
        None => with_ids(json(200, RESULT), &["theirs"]),
        Some(_) if call.method == Method::DELETE => plain(204, ""),
        Some(_) => with_ids(json(200, RESULT), &["stray"]),
    });
    let layer = over(&MemoryStore::new()).with_inner_context(|request| {
        InnerContext::new().with_headers_of(request, [AUTHORIZATION])
    });
    let service = layer.layer(inner.clone());
    let told = async |id: &str| {
        let tells = inner.tells().await;
        assert_eq!(tells.len(), 1);
        assert_eq!(tells[0].id(), id);
        tells[0].headers["authorization"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    send(&service, by("birth", initialize())).await;
    send(&service, by("call", post("theirs"))).await;
    assert_eq!(told("stray").await, "call");
    let store = TestStore::default();
    let failing = over(&store).with_inner_context(|request| {
        InnerContext::new().with_headers_of(request, [AUTHORIZATION])
    });
    let service = failing.layer(inner.clone());
    store.disturb(&["create"], AWAY);
    let refused = send(&service, by("unlucky", initialize())).await;
    assert_eq!(refused.status, 503);
    assert_eq!(told("theirs").await, "unlucky");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_a_copy_and_has_a_bound() {
    let (head, ()) = http::Request::builder()
        .header(AUTHORIZATION, "a".repeat(4 << 10))
        .header(TENANT, "b")
        .body(())
        .unwrap()
        .into_parts();
    let context = InnerContext::new().with_headers_of(&head, [AUTHORIZATION, TENANT]);
    let shown = format!("{context:?}");
    assert!(
        shown.contains("authorization") && !shown.contains("x-tenant"),
        "{shown}"
    );
    assert!(!shown.contains("aaa"), "secret");
    let context = InnerContext::new().with_headers_of(&head, [TENANT, AUTHORIZATION]);
    let shown = format!("{context:?}");
    assert!(
        !shown.contains("authorization") && shown.contains("x-tenant"),
        "{shown}"
    );
}

/// Some services open another session for each `initialize` on a live one. Those that cannot be ended must not pile up.
#[tokio::test(start_paused = true)]
async fn sessions_in_surplus_that_cannot_be_ended_have_a_bound() {
    for (status, ends_them) in [
        (204, true),
        (404, false),
        (401, false),
        (405, false),
        (503, false),
    ] {
        for store in [TestStore::default(), TestStore::default().remote()] {
            let issued = AtomicUsize::new(0);
            let inner = Inner::new(move |call| match call.method {
                Method::DELETE => plain(status, ""),
                _ if call.body == INITIALIZE => {
                    let nth = issued.fetch_add(1, Relaxed);
                    with_ids(json(200, RESULT), &[&format!("theirs-{nth}")])
                }
                _ => json(200, RESULT),
            });
            let layer = over(&store);
            let service = layer.layer(inner.clone());
            let id = create(&service, &inner).await;
            for nth in 0..5 {
                let again = with_header(initialize(), "mcp-session-id", &id);
                let answer = send(&service, again).await;
                match ends_them || nth == 0 {
                    true => assert_eq!((answer.status, answer.ids().len()), (200, 0)),
                    false => {
                        answer.assert_refused(RejectionKind::AlreadyInitialized, 400, ALREADY);
                    }
                }
                settled().await;
                // Whatever else is asked is served.
                assert_eq!(send(&service, post(&id)).await.status, 200);
            }
            let initializes = inner
                .calls()
                .iter()
                .filter(|call| call.body == INITIALIZE)
                .count();
            assert_eq!(initializes, if ends_them { 5 } else { 1 }, "{status}");
            // Others are none the wiser.
            let other = create(&service, &inner).await;
            let again = with_header(initialize(), "mcp-session-id", &other);
            assert_eq!(send(&service, again).await.status, 200);
        }
    }
}

const ALREADY: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"Invalid Request: Session is already initialized"}}"#;
