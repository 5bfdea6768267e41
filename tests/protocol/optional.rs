//! Where sessions are optional: an `initialize` creates one, everything else goes through.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::body::Body;
use futures_util::{StreamExt as _, poll, stream};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    inner::{Inner, json, plain, with_ids},
    setup::{over, plant},
    support::{
        answers::{RESULT, send},
        requests::{INITIALIZE, PING, delete, initialize, post, request},
        sessions::{is_live, owner},
        time::settled,
    },
};

#[tokio::test(start_paused = true)]
async fn requests_without_a_session_pass_as_they_are() {
    let inner = Inner::silent();
    let store = MemoryStore::new();
    let service = over(&store).with_optional_sessions().layer(inner.clone());
    plant(&store, "live", owner(None), Issuer::Inner).await;

    let long = format!("{INITIALIZE}{}", " ".repeat(100_000));
    for (method, body) in [
        ("POST", PING),
        ("POST", "["),
        ("POST", "\u{feff}{}"),
        ("POST", r#"{"id":1,"method":"initialize","method":"ping"}"#),
        ("POST", r#"[{"id":1,"method":"initialize"}]"#),
        ("POST", &long),
        ("GET", ""),
        ("DELETE", ""),
        ("PUT", "x"),
    ] {
        let request = request(method)
            .header("mcp-session-id", "")
            .header("last-event-id", "5");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = send(&service, request).await;
        assert_eq!((answer.status, &*answer.body), (200, RESULT), "{method}");
        assert!(answer.ids().is_empty(), "the layer issues none");
        let call = inner.calls().remove(0);
        assert!(call.body == body, "{method} {body:.100}");
        assert!(!call.headers.contains_key("mcp-session-id"));
        assert!(!call.headers.contains_key("last-event-id"));
        assert!(call.session.is_none());
    }

    // What names a session is judged as ever.
    for (id, kind) in [
        ("never", RejectionKind::Unknown),
        ("a b", RejectionKind::Malformed),
    ] {
        send(&service, post(id)).await.assert_not_found(kind);
    }
    assert!(inner.calls().is_empty());
    assert_eq!(send(&service, post("live")).await.status, 200);
    assert!(inner.calls()[0].session.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_initialize_creates_a_session() {
    for (issued, issuer) in [(&["theirs"][..], Issuer::Inner), (&[], Issuer::Layer)] {
        let inner = Inner::issuing(issued);
        let store = MemoryStore::new();
        let layer = over(&store).with_optional_sessions();
        let service = layer.layer(inner.clone());
        let id = send(&service, initialize()).await.id();
        assert!(is_live(&store, &id).await);
        inner.calls();
        assert_eq!(send(&service, post(&id)).await.status, 200);
        let session = inner.calls().remove(0).session.unwrap();
        assert_eq!(session.record().issuer, issuer);
        assert_eq!(session.record().client.as_ref().unwrap().name, "probe");

        layer.sessions().drain();
        send(&service, initialize())
            .await
            .assert_unavailable(RejectionKind::Draining);
        let ping = request("POST").body(PING.into()).unwrap();
        assert_eq!(
            send(&service, ping).await.status,
            if issued.is_empty() { 200 } else { 503 }
        );
    }
}

/// A service may open a session whenever it likes; a GET is none of its occasions.
#[tokio::test(start_paused = true)]
async fn an_id_in_the_answer_to_a_post_is_recorded() {
    for body in [PING, "[", r#"[{"id":1,"method":"initialize"}]"#] {
        let inner = Inner::issuing(&["theirs"]);
        let store = MemoryStore::new();
        let service = over(&store).with_optional_sessions().layer(inner.clone());
        let get = send(&service, request("GET").body(Body::empty()).unwrap()).await;
        assert!(get.ids().is_empty());
        assert_eq!(inner.told().await, ["theirs"]);

        let answer = send(&service, request("POST").body(body.into()).unwrap()).await;
        assert_eq!(answer.id(), "theirs", "{body}");
        assert!(is_live(&store, "theirs").await);
        assert_eq!(send(&service, post("theirs")).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_slow_or_breaks_off_goes_on_as_it_comes() {
    // Answers with what it could read, and with whether that was all.
    let inner = tower::service_fn(|request: Request<Body>| async {
        let mut body = request.into_body();
        let mut seen = Vec::new();
        let end = loop {
            match body.frame().await {
                Some(Ok(frame)) => seen.extend(frame.into_data().unwrap()),
                Some(Err(error)) => break error.to_string(),
                None => break "the end".to_owned(),
            }
        };
        let seen = String::from_utf8(seen).unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(format!("{seen}, {end}"))))
    });
    let service = over(&MemoryStore::new())
        .with_optional_sessions()
        .layer(inner);
    let pieces = [Ok("ab"), Err(std::io::Error::other("reset")), Ok("c")];
    let broken = Body::from_stream(stream::iter(pieces));
    let slow = stream::iter(["a", "b", "c", "d"]).then(|piece| async move {
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        Ok::<_, Infallible>(piece)
    });
    for (body, expected) in [
        (broken, "ab, reset"),
        (Body::from_stream(slow), "abcd, the end"),
    ] {
        let answer = send(&service, request("POST").body(body).unwrap()).await;
        assert_eq!((answer.status, &*answer.body), (200, expected));
    }
}

/// One more than is running, until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// More than may run in the background.
const CLIENTS: usize = 4096 + 1;

#[tokio::test(start_paused = true)]
async fn a_call_without_a_session_ends_when_its_client_hangs_up() {
    let running = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&running);
    let inner = tower::service_fn(move |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let has_id = parts.headers.contains_key("mcp-session-id");
        let running = Running::begin(&counted);
        async move {
            let _running = running;
            let body = body.collect().await.unwrap().to_bytes();
            if body == PING && !has_id {
                pending::<()>().await;
            }
            let ids: &[&str] = if body == INITIALIZE { &["theirs"] } else { &[] };
            Ok::<_, Infallible>(with_ids(json(200, RESULT), ids))
        }
    });
    let store = MemoryStore::new();
    let service = over(&store).with_optional_sessions().layer(inner);
    let ping = || request("POST").body(Body::from(PING)).unwrap();

    let mut calls = JoinSet::new();
    for _ in 0..CLIENTS {
        calls.spawn(service.clone().oneshot(ping()));
    }
    settled().await;
    assert_eq!(running.load(Relaxed), CLIENTS);
    // While they run, others are served.
    assert_eq!(send(&service, initialize()).await.id(), "theirs");

    calls.shutdown().await;
    assert_eq!(running.load(Relaxed), 0, "left running");
    assert_eq!(send(&service, post("theirs")).await.status, 200);
    assert_eq!(send(&service, delete("theirs")).await.status, 200);
    let get = request("GET").body(Body::empty()).unwrap();
    assert_eq!(send(&service, get).await.status, 200);
}

/// What the inner service has opened is recorded, whoever listens.
#[tokio::test(start_paused = true)]
async fn an_id_is_recorded_although_the_client_hangs_up_on_its_answer() {
    let store =
        crate::support::store::TestStore::default().with_delay(std::time::Duration::from_secs(1));
    let service = over(&store)
        .with_optional_sessions()
        .layer(Inner::issuing(&["theirs"]));
    let ping = request("POST").body(Body::from(PING)).unwrap();
    let mut call = Box::pin(service.clone().oneshot(ping));
    for _ in 0..10 {
        assert!(poll!(&mut call).is_pending());
        tokio::task::yield_now().await;
    }
    drop(call);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(is_live(&store.memory, "theirs").await);
}

/// The stream of the transport of 2024-11-05, on the path of those that came after it.
#[tokio::test(start_paused = true)]
async fn a_get_without_a_session_passes_where_it_may() {
    let inner = Inner::new(|_| with_ids(plain(200, "event: endpoint"), &["stray"]));
    let store = MemoryStore::new();
    let service = over(&store).with_get_without_session().layer(inner.clone());
    for id in [None, Some("")] {
        let mut get = request("GET").header("last-event-id", "5");
        if let Some(id) = id {
            get = get.header("mcp-session-id", id);
        }
        let answer = send(&service, get.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, &*answer.body), (200, "event: endpoint"));
        assert!(answer.ids().is_empty());
        let call = inner.calls().remove(0);
        assert!(!call.headers.contains_key("last-event-id"));
        assert!(!call.headers.contains_key("mcp-session-id"));
        assert_eq!(inner.told().await, ["stray"]);
    }
    let dead = send(&service, crate::support::requests::get("never")).await;
    dead.assert_not_found(RejectionKind::Unknown);
    let ping = request("POST").body(Body::from(PING)).unwrap();
    assert_eq!(send(&service, ping).await.status, 400);
    assert!(inner.calls().is_empty());
}
