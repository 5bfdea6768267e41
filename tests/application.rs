//! What the rest of an application does with the crate's types: handlers, JSON, logs.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse as _,
    routing::{get, post},
};
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    ClientInfo, MemoryStore, Session, SessionId, SessionRef, Sessions, header,
    store::{SessionInfo, StoreError, StoreErrorKind},
};
use serde_json::{Value, json};

use support::{
    answers::send,
    layer::layer,
    log::Log,
    requests::{delete, initialize, on, request, with_header},
    sessions::reference,
};

mod support;

fn app() -> (Router, Sessions) {
    let layer = layer(MemoryStore::new()).with_paths(["/mcp"]);
    let sessions = layer.sessions();
    let admin = Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{reference}", get(end))
        .with_state(sessions.clone());
    let mcp = async || Json(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    let app = Router::new().route("/mcp", post(mcp)).layer(layer);
    (app.merge(admin), sessions)
}

async fn list(State(sessions): State<Sessions>) -> Result<String, StoreError> {
    let listed = sessions.list(None, 10).await?;
    Ok(serde_json::to_string(&listed).expect("all of it has serde"))
}

async fn end(
    State(sessions): State<Sessions>,
    Path(reference): Path<SessionRef>,
) -> Result<StatusCode, StoreError> {
    Ok(match sessions.end(&reference).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

#[tokio::test(start_paused = true)]
async fn a_list_of_sessions_is_json() {
    let (app, _) = app();
    let id = send(&app, initialize()).await.id();
    tokio::time::advance(Duration::from_millis(1500)).await;
    let answer = send(
        &app,
        http::Request::get("/sessions").body("".into()).unwrap(),
    )
    .await;
    assert!(!answer.body.contains(&id), "an id is a secret");
    let list: Value = serde_json::from_str(&answer.body).unwrap();
    let expected = json!([{
        "reference": reference(&id).to_string(),
        "record": {
            "owner": { "scope": "mcp", "principal": null },
            "issuer": "layer",
            "client": { "name": "probe", "version": "1.2" },
            "protocol_version": "2025-06-18",
        },
        "age": 1.5,
        "idle_left": 298.5,
        "life_left": null,
    }]);
    assert_eq!(list, expected);

    let again: Vec<SessionInfo> = serde_json::from_value(list).unwrap();
    assert_eq!(again[0].reference, reference(&id));
    assert_eq!(again[0].age, Duration::from_millis(1500));
    assert_eq!(again[0].life_left, None);
    let client = again[0].record.client.clone().unwrap();
    let (name, version) = ("probe".into(), "1.2".into());
    assert_eq!(client, ClientInfo { name, version });
    let mut never = expected[0].clone();
    never["age"] = json!(-1);
    assert!(serde_json::from_value::<SessionInfo>(never).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reference_is_an_argument_of_a_handler() {
    let (app, sessions) = app();
    let id = send(&app, initialize()).await.id();
    let end = |reference: &str| {
        let request = http::Request::get(format!("/sessions/{reference}"));
        request.body("".into()).unwrap()
    };
    let answer = send(&app, end("no-reference")).await;
    assert_eq!(answer.status, 400);
    let why = "a session reference is 43 characters of base64url";
    assert!(answer.body.contains(why), "{}", answer.body);
    let this = reference(&id).to_string();
    assert_eq!(send(&app, end(&this)).await.status, 204);
    assert_eq!(send(&app, end(&this)).await.status, 404);
    assert_eq!(sessions.count().await.unwrap(), 0);
}

/// Compiles only as long as neither has serde: with it, there would be two traits to choose from.
#[test]
fn secrets_do_not_serialize() {
    trait Either<Which> {
        fn chosen() {}
    }
    struct WithSerde;
    impl<T: ?Sized> Either<()> for T {}
    impl<T: ?Sized + serde::Serialize> Either<WithSerde> for T {}
    <SessionId as Either<_>>::chosen();
    // A session knows its id.
    <Session as Either<_>>::chosen();
}

#[tokio::test]
async fn a_store_that_failed_is_503_and_its_trouble_stays_inside() {
    let log = Log::default();
    let _guard = log.listen();
    for kind in [
        StoreErrorKind::Unavailable,
        StoreErrorKind::Corrupt,
        StoreErrorKind::Unsupported,
        StoreErrorKind::Failed,
    ] {
        let error = StoreError::new(kind, "list sessions").with_source("no route to 10.0.0.7");
        let (head, body) = error.into_response().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.status, 503);
        assert_eq!(head.headers["retry-after"], "1");
        assert_eq!(head.headers["cache-control"], "no-store");
        assert_eq!(&text[..], b"Service temporarily unavailable");
        let log = log.take();
        assert!(log.contains("list sessions"), "{log}");
        assert!(log.contains("10.0.0.7"), "{log}");
    }
}

#[test]
fn header_names_are_those_on_the_wire() {
    let names = [
        (&header::SESSION_ID, "mcp-session-id"),
        (&header::PROTOCOL_VERSION, "mcp-protocol-version"),
        (&header::METHOD, "mcp-method"),
        (&header::NAME, "mcp-name"),
        (&header::LAST_EVENT_ID, "last-event-id"),
    ];
    for (name, written) in names {
        assert_eq!(name, written);
    }
}

/// A method router says what its handlers serve, also around an answer that is none of theirs.
#[tokio::test]
async fn a_delete_that_succeeds_is_allowed() {
    let (app, _) = app();
    let id = send(&app, initialize()).await.id();
    let ended = send(&app, delete(&id)).await;
    assert_eq!(ended.status, 204, "{}", ended.wire());
    assert_eq!(ended.header("allow"), Some("GET, POST, DELETE"));
}

#[tokio::test]
async fn the_log_says_why_a_request_was_refused() {
    let log = Log::default();
    let _guard = log.listen();
    let (app, _) = app();
    let dead = "3f0c6a52-dead";
    let version = |version| with_header(on(dead, "GET"), "mcp-protocol-version", version);
    let without_id = request("DELETE").body("".into()).unwrap();
    for (request, reason, method, era, session) in [
        (on(dead, "POST"), "unknown", "POST", "legacy", Some(dead)),
        (version("banana"), "unknown", "GET", "unknown", Some(dead)),
        (without_id, "missing_session", "DELETE", "legacy", None),
    ] {
        send(&app, request).await;
        let line = log.take();
        let session = session.map(|id| format!(" session={}", reference(id)));
        let session = session.unwrap_or_default();
        let fields =
            format!("refused a request reason=\"{reason}\"{session} method={method} era=\"{era}\"");
        assert!(line.contains(&fields), "{line}\n{fields}");
        assert!(!line.contains(dead), "{line}");
    }
}

/// As when the layer is around something else, or a handler returns a `String`.
#[tokio::test]
async fn the_log_says_once_that_initialize_is_answered_with_something_else() {
    let log = Log::default();
    let _guard = log.listen();
    let warned = || log.take().matches(" WARN ").count();
    let guarded = |mcp| {
        let app = Router::new().route("/mcp", mcp);
        app.layer(layer(MemoryStore::new()).with_paths(["/mcp"]))
    };
    let text = guarded(post(async || "hello"));
    let question = request("POST").body("{}".into()).unwrap();
    assert_eq!(send(&text, question).await.status, 400);
    assert_eq!(warned(), 0, "it is no `initialize`");
    assert!(send(&text, initialize()).await.ids().is_empty());
    let line = log.take();
    let content_type = r#"content_type=Some("text/plain; charset=utf-8")"#;
    assert!(
        line.contains(" WARN ") && line.contains(content_type),
        "{line}"
    );
    assert!(line.contains("no session is opened"), "{line}");
    send(&text, initialize()).await;
    assert_eq!(warned(), 0, "it is said already");

    let failed = guarded(post(async || (StatusCode::BAD_GATEWAY, "hello")));
    send(&failed, initialize()).await;
    let (json, _) = app();
    send(&json, initialize()).await;
    assert_eq!(warned(), 0, "neither is a mistake of the set-up");
}
