//! Whatever comes in: no id reaches the inner service that the store does not hold live for its caller, and none goes
//! out that the store does not hold live.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Method, Request};
use mcp_session_layer::{Issuer, MemoryStore, SessionId, SessionStore as _};
use parking_lot::Mutex;
use proptest::{collection::vec, prelude::*};
use tokio::{
    runtime::Builder,
    time::{advance, pause},
};
use tower::Layer as _;

use crate::{
    inner::{Inner, plain},
    setup::{over, plant},
    support::{
        answers::{RESULT, send},
        layer::user_header,
        requests::{INITIALIZE, MODERN_PING, PING, request},
        sessions::{is_live, owner},
        time::settled,
    },
};

/// A request and what the inner service says to it.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    method: String,
    user: Option<&'static str>,
    versions: Vec<Vec<u8>>,
    ids: Vec<Vec<u8>>,
    last_event_id: bool,
    is_named_initialize: bool,
    body: Vec<u8>,
    status: u16,
    content: &'static str,
    answer: &'static str,
    issued: Vec<Vec<u8>>,
    /// Time passes before it.
    seconds: u64,
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7Eu8, 0x80..=0xFFu8];
    vec(byte, 0..12)
}

fn ids() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known: &'static [&str] = &[
        "alices",
        "bobs",
        "anonymous",
        "ended",
        "expired",
        "fresh",
        "fresh-2",
        "a b",
        "",
    ];
    let id = prop_oneof![
        8 => proptest::sample::select(known).prop_map(|id| id.as_bytes().to_vec()),
        1 => any_bytes(),
    ];
    prop_oneof![2 => Just(vec![]), 6 => vec(id.clone(), 1), 1 => vec(id, 2..4)]
}

fn versions() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known: &'static [&str] = &[
        "2025-11-25",
        "2025-06-18",
        "2026-07-28",
        "2030-01-01",
        "banana",
        "",
    ];
    let version = prop_oneof![
        6 => proptest::sample::select(known).prop_map(|id| id.as_bytes().to_vec()),
        1 => any_bytes(),
    ];
    prop_oneof![4 => vec(version.clone(), 0..2), 1 => vec(version, 2)]
}

pub(crate) fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop_oneof![
        "POST",
        "POST",
        "(GET|HEAD|DELETE|OPTIONS|PUT)",
        "[A-Z]{1,8}"
    ];
    let body = prop_oneof![
        3 => Just(INITIALIZE.as_bytes().to_vec()),
        2 => Just(PING.as_bytes().to_vec()),
        1 => Just(MODERN_PING.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..64),
    ];
    let request = (
        method,
        proptest::sample::select(&[None, Some("alice"), Some("bob")][..]),
        versions(),
        ids(),
        any::<[bool; 2]>(),
        body,
    );
    let statuses = &[200, 200, 200, 202, 204, 400, 404, 404, 405, 500][..];
    let contents = &["application/json", "text/event-stream", "text/plain"][..];
    let answers = &[
        RESULT,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
        "",
    ][..];
    let answer = (
        proptest::sample::select(statuses),
        proptest::sample::select(contents),
        proptest::sample::select(answers),
        ids(),
    );
    (request, answer, prop_oneof![9 => 0..9u64, 1 => 0..4000u64]).prop_map(
        |(request, answer, seconds)| {
            let (method, user, versions, ids, others, body) = request;
            let [last_event_id, is_named_initialize] = others;
            let (status, content, answer, issued) = answer;
            Exchange {
                method,
                user,
                versions,
                ids,
                last_event_id,
                is_named_initialize,
                body,
                status,
                content,
                answer,
                issued,
                seconds,
            }
        },
    )
}

fn value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap()
}

impl Exchange {
    fn request(&self) -> Request<Body> {
        let mut builder = request(&self.method);
        for version in &self.versions {
            builder = builder.header("mcp-protocol-version", value(version));
        }
        for id in &self.ids {
            builder = builder.header("mcp-session-id", value(id));
        }
        if self.last_event_id {
            builder = builder.header("last-event-id", "1");
        }
        if self.is_named_initialize {
            builder = builder.header("mcp-method", "initialize");
        }
        if let Some(user) = self.user {
            builder = builder.header("x-user", user);
        }
        builder.body(Body::from(self.body.clone())).unwrap()
    }
}

async fn holds(
    exchanges: Vec<Exchange>,
    optional: bool,
    forwards: bool,
) -> Result<(), TestCaseError> {
    pause();
    let store = MemoryStore::new();
    plant(&store, "expired", owner(Some("alice")), Issuer::Inner).await;
    advance(Duration::from_secs(900)).await;
    for (id, user) in [
        ("alices", Some("alice")),
        ("bobs", Some("bob")),
        ("anonymous", None),
    ] {
        plant(&store, id, owner(user), Issuer::Inner).await;
    }

    let next = Arc::new(Mutex::new(None::<Exchange>));
    let broken = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let (next, broken, store) = (Arc::clone(&next), Arc::clone(&broken), store.clone());
        Inner::slow(move |call| {
            let call = call.clone();
            let exchange = next.lock().clone().unwrap();
            let (broken, store) = (Arc::clone(&broken), store.clone());
            Box::pin(async move {
                // What the layer says on its own account is of sessions that are no more.
                if !call.headers.contains_key("accept") {
                    if call.method != Method::DELETE {
                        broken.lock().push(format!("{call:?} of the layer's own"));
                    } else if is_live(&store, &call.id()).await {
                        broken
                            .lock()
                            .push(format!("told to end a live session: {call:?}"));
                    }
                    return plain(200, "");
                }
                for id in call.headers.get_all("mcp-session-id") {
                    let found = match SessionId::from_header(id) {
                        Ok(id) => store.load(&id).await.unwrap(),
                        Err(_) => None,
                    };
                    let owner_of = found.map(|found| found.session.owner().clone());
                    if owner_of != Some(owner(exchange.user)) || call.session.is_none() {
                        broken
                            .lock()
                            .push(format!("{call:?} with an id of {owner_of:?}"));
                    }
                }
                if call.session.is_none() && call.headers.contains_key("last-event-id") {
                    broken.lock().push(format!("{call:?} with an event id"));
                }
                let mut response = plain(exchange.status, exchange.answer);
                response
                    .headers_mut()
                    .insert("content-type", value(exchange.content.as_bytes()));
                for id in &exchange.issued {
                    response.headers_mut().append("mcp-session-id", value(id));
                }
                response
            })
        })
    };
    let mut layer = over(&store).with_principal(user_header);
    if optional {
        layer = layer.with_optional_sessions();
    }
    if forwards {
        layer = layer.with_issued_ids_forwarded();
    }
    let service = layer.layer(inner);

    for exchange in exchanges {
        advance(Duration::from_secs(exchange.seconds)).await;
        *next.lock() = Some(exchange.clone());
        let answer = send(&service, exchange.request()).await;
        let out: Vec<_> = answer.headers.get_all("mcp-session-id").iter().collect();
        prop_assert!(out.len() < 2, "{out:?}");
        for id in out {
            let Ok(id) = SessionId::from_header(id) else {
                return Err(TestCaseError::fail(format!("{id:?} went out")));
            };
            let found = store.load(&id).await.unwrap();
            let owner_of = found.map(|found| found.session.owner().clone());
            prop_assert_eq!(owner_of, Some(owner(exchange.user)), "whose id went out");
            prop_assert!(answer.rejection.is_none(), "a refusal with an id");
        }
        settled().await;
        prop_assert!(broken.lock().is_empty(), "{:?}", broken.lock());
    }
    Ok(())
}

/// Exchanges, and whether sessions are optional and issued ids go inward.
pub(crate) fn cases() -> impl Strategy<Value = (Vec<Exchange>, bool, bool)> {
    (vec(exchange(), 1..8), any::<bool>(), any::<bool>())
}

pub(crate) fn check(
    (exchanges, optional, forwards): (Vec<Exchange>, bool, bool),
) -> Result<(), TestCaseError> {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(holds(exchanges, optional, forwards))
}

#[test]
fn only_live_ids_go_in_and_out() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(512)
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&cases(), check)
        .unwrap();
}
