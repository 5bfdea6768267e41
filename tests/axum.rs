//! The layer in an axum router: whatever the shape, a dead id reaches no MCP handler, and other routes are left alone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use axum::{
    Router,
    extract::{OriginalUri, Request},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use mcp_session_layer::{Issuer, MemoryStore, Session, SessionStore as _, store::EndReason};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tower::{Layer as _, service_fn};

use support::{
    answers::{self, Answer},
    layer::{SessionLayer, layer},
    log::Log,
    requests::{request, with_header},
    sessions::{insert, owner, session, terms},
    time::{HOUR, MINUTE, SECOND},
};

mod support;

/// The MCP handler. It says so, and what reached it.
async fn mcp(request: Request) -> Response {
    let ids: Vec<_> = request.headers().get_all("mcp-session-id").iter().collect();
    format!("mcp {ids:?}").into_response()
}

/// What else there is in an application. It answers with the session header that it was sent, and with one of its own.
async fn other(request: Request) -> Response {
    let mut response = "other".into_response();
    for id in request.headers().get_all("mcp-session-id") {
        response.headers_mut().append("mcp-session-id", id.clone());
    }
    let own = "not a session".parse().unwrap();
    response.headers_mut().append("mcp-session-id", own);
    response
}

/// A service that finds its way itself, as tolerantly as any: it decodes, merges slashes, resolves dots.
async fn tolerant(request: Request) -> Response {
    let path = request
        .extensions()
        .get::<OriginalUri>()
        .map_or(request.uri(), |uri| &uri.0)
        .path()
        .to_owned();
    let path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    match segments.first() {
        Some(&"mcp") => mcp(request).await,
        _ => other(request).await,
    }
}

fn others() -> Router {
    let router = Router::new().route("/health", get(other));
    router.route("/mcpx", any(other)).route("/MCP", any(other))
}

/// Each shape of router, with the layer over the whole app and a list of paths, or around the service.
fn shapes(guard: &SessionLayer) -> Vec<(&'static str, Router)> {
    let listed = guard.clone().with_paths(["/mcp"]);
    let below = || {
        Router::new()
            .route("/", any(mcp))
            .route("/{*rest}", any(mcp))
    };
    let service = || any(mcp);
    vec![
        (
            "route, app",
            others()
                .route("/mcp", any(mcp))
                .route("/mcp/", any(mcp))
                .route("/mcp/{*rest}", any(mcp))
                .layer(listed.clone()),
        ),
        (
            "route, service",
            others()
                .route_service("/mcp", guard.layer(service()))
                .route_service("/mcp/{*rest}", guard.layer(service())),
        ),
        (
            "nest, app",
            others().nest("/mcp", below()).layer(listed.clone()),
        ),
        (
            "nest, service",
            others().nest_service("/mcp", guard.layer(below())),
        ),
        (
            "nest_service, app",
            others()
                .nest_service("/mcp", service())
                .layer(listed.clone()),
        ),
        (
            "nest_service, service",
            others().nest_service("/mcp", guard.layer(service())),
        ),
        (
            "layer inside nest, paths",
            others().nest("/mcp", below().layer(listed.clone())),
        ),
        (
            "layer inside nest",
            others().nest("/mcp", below().layer(guard.clone())),
        ),
        (
            "fallback_service, app",
            others()
                .fallback_service(any(tolerant))
                .layer(listed.clone()),
        ),
        (
            "fallback_service, service with paths",
            others().fallback_service(listed.layer(any(tolerant))),
        ),
        (
            "fallback_service, service",
            others().fallback_service(guard.layer(any(tolerant))),
        ),
    ]
}

async fn send(app: &Router, method: &str, path: &str, id: Option<&str>) -> Answer {
    let mut request = request(method)
        .uri(path)
        .body(axum::body::Body::empty())
        .unwrap();
    if let Some(id) = id {
        request = with_header(request, "mcp-session-id", id);
    }
    answers::send(app, request).await
}

/// Puts a session into the store that no `initialize` created.
async fn plant(store: &MemoryStore, id: &str) -> Session {
    let session = session(id, owner(None), Issuer::Inner);
    insert(store, &session, &terms()).await;
    session
}

const SPELLINGS: [&str; 12] = [
    "/mcp",
    "/mcp/",
    "/mcp/x",
    "//mcp",
    "/mcp/../mcp",
    "/mcp/./",
    "/x/../mcp",
    "/%6Dcp",
    "/%6dcp/x",
    "/mcp%2Fx",
    "/mcp?x=1",
    "/mcp/?mcp",
];

#[tokio::test(start_paused = true)]
async fn a_dead_id_reaches_no_mcp_handler_in_any_shape() {
    let guard = layer(MemoryStore::new());
    for (shape, app) in shapes(&guard) {
        for spelling in SPELLINGS {
            for method in ["POST", "GET", "DELETE", "PUT", "BREW"] {
                for id in [Some("dead"), Some("a b"), None] {
                    let answer = send(&app, method, spelling, id).await;
                    let said = &answer.body;
                    assert!(
                        !said.contains("mcp ["),
                        "{shape}: {method} {spelling}: {said}"
                    );
                    assert!(
                        answer.ids().is_empty() || said == "other",
                        "{shape}: {spelling}"
                    );
                }
            }
        }
        for spelling in ["/mcp", "/mcp/x"] {
            let answer = send(&app, "GET", spelling, Some("dead")).await;
            assert!(answer.rejection.is_some(), "{shape}: {spelling}");
            assert_eq!(answer.status, 404);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_id_reaches_the_mcp_handler_in_every_shape() {
    let store = MemoryStore::new();
    plant(&store, "live").await;
    for (shape, app) in shapes(&layer(store)) {
        for spelling in ["/mcp", "/mcp/x"] {
            for method in ["GET", "PUT"] {
                let answer = send(&app, method, spelling, Some("live")).await;
                assert_eq!(answer.body, r#"mcp [Sensitive]"#, "{shape}: {spelling}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_routes_are_left_alone() {
    let guard = layer(MemoryStore::new());
    for (shape, app) in shapes(&guard) {
        for path in ["/health", "/mcpx", "/MCP"] {
            let answer = send(&app, "GET", path, Some("dead")).await;
            assert_eq!(answer.body, "other", "{shape}: {path}");
            assert_eq!(answer.ids(), ["dead", "not a session"], "{shape}: {path}");
            assert_eq!(answer.headers.len(), 4, "nothing is added");
            let answer = send(&app, "GET", path, None).await;
            assert_eq!(answer.ids(), ["not a session"], "{shape}: {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_take_the_session_as_an_argument() {
    async fn must(session: Session) -> String {
        session.reference().to_string()
    }
    async fn may(session: Option<Session>) -> String {
        session.map_or("none".into(), |session| session.reference().to_string())
    }
    let store = MemoryStore::new();
    let session = plant(&store, "live").await;
    let bare = Router::new()
        .route("/mcp/must", any(must))
        .route("/mcp/may", any(may));
    let app = bare.clone().layer(layer(store));
    for path in ["/mcp/must", "/mcp/may"] {
        let answer = send(&app, "POST", path, Some("live")).await;
        assert_eq!(answer.body, session.reference().to_string());
    }
    // A preflight has no session.
    assert_eq!(
        send(&app, "OPTIONS", "/mcp/may", Some("live")).await.body,
        "none"
    );

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    assert_eq!(
        send(&bare, "POST", "/mcp/may", Some("live")).await.body,
        "none"
    );
    assert_eq!(log.text(), "");
    let answer = send(&bare, "POST", "/mcp/must", Some("live")).await;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.body, "",
        "the application's mistakes are not the client's to read"
    );
    let log = log.text();
    assert!(
        log.contains("ERROR") && log.contains("`McpSessionLayer` is not around this route"),
        "{log}"
    );
    assert!(!log.contains("live"), "{log}");
}

/// A value that says when it is gone.
struct Probe(Arc<AtomicBool>);

#[derive(Default)]
struct Kept(Mutex<Option<Probe>>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn local_values_last_as_long_as_their_session() {
    for end in ["DELETE", "handle", "idle", "store"] {
        let store = MemoryStore::new();
        let session = plant(&store, "live").await;
        let layer = layer(store.clone());
        let sessions = layer.sessions();
        let dropped = Arc::new(AtomicBool::new(false));
        let probe = Arc::clone(&dropped);
        let app = Router::new().route_service(
            "/mcp",
            layer.layer(service_fn(move |request: Request| {
                let session = request.extensions().get::<Session>().unwrap().clone();
                let kept = session.local::<Kept>();
                let is_new = kept.0.lock().is_none();
                if is_new && request.method() == "POST" {
                    *kept.0.lock() = Some(Probe(Arc::clone(&probe)));
                }
                async move { Ok::<_, std::convert::Infallible>(is_new.to_string().into_response()) }
            })),
        );
        for expected in ["true", "false", "false"] {
            let answer = send(&app, "POST", "/mcp", Some("live")).await;
            assert_eq!(answer.body, expected);
            tokio::time::sleep(MINUTE).await;
        }
        assert!(!dropped.load(SeqCst));
        match end {
            "DELETE" => drop(send(&app, "DELETE", "/mcp", Some("live")).await),
            "handle" => assert!(sessions.end(session.reference()).await.unwrap()),
            "idle" => tokio::time::sleep(HOUR).await,
            _ => assert!(
                store
                    .delete(session.id(), EndReason::Revoked)
                    .await
                    .unwrap()
            ),
        }
        // Without a word from the store's feed it would be the next look that finds out.
        tokio::time::sleep(SECOND).await;
        assert!(dropped.load(SeqCst), "{end}");
    }
}
