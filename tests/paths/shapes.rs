//! Routers of every shape, with and without the layer.

use axum::{
    Router,
    body::Body,
    extract::{OriginalUri, Path, Request},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, any},
};
use mcp_session_layer::McpSessionLayer;
use percent_encoding::percent_decode_str;
use tower::ServiceExt as _;
use url::Url;

pub(crate) type Guard = McpSessionLayer;

/// One router. Without a layer it tells where axum and its handlers bring a path.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Which paths the layer is told; none where it guards everything.
    pub(crate) guarded: &'static [&'static str],
    /// Whether the layer sees all requests.
    pub(crate) is_outside: bool,
    pub(crate) build: fn(Option<Guard>) -> Router,
}

/// The handler behind the guard.
async fn mcp() -> &'static str {
    "mcp"
}

/// What else there is. It tells what came to it.
async fn other(original: OriginalUri, request: Request) -> Response {
    let id = request.headers().get("mcp-session-id");
    format!("other {} {} {id:?}", original.0, request.uri()).into_response()
}

/// A handler that looks where a path leads by its own reading.
async fn dispatch(read: fn(&str) -> String, original: OriginalUri, request: Request) -> Response {
    let path = read(original.path());
    match path == "/mcp" || path.starts_with("/mcp/") {
        true => mcp().await.into_response(),
        false => other(original, request).await,
    }
}

/// Decodes, merges slashes, resolves dots.
fn tolerant(path: &str) -> String {
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments.iter().flat_map(|segment| ["/", segment]).collect()
}

/// Decodes what it is given, and lets its client make an URL of it.
fn gateway(path: &str) -> String {
    let path = percent_decode_str(path).decode_utf8_lossy();
    let url = Url::parse(&format!("http://upstream{path}"));
    url.map_or_else(|_| String::new(), |url| url.path().to_owned())
}

/// Cuts parameters, decodes twice, knows two slashes.
fn container(path: &str) -> String {
    let segments = path.split('/').map(|s| s.split(';').next().unwrap());
    let path = segments.collect::<Vec<_>>().join("/");
    let once = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    tolerant(&once.replace('\\', "/"))
}

fn others() -> Router {
    Router::new()
        .route("/", any(other))
        .route("/x", any(other))
        .route("/mcpx", any(other))
        .route("/MCP", any(other))
        .route("/search/{what}", any(other))
        .route("/docs/{*rest}", any(other))
        .route("/docs;v=1/{*rest}", any(other))
        .nest("/wiki", Router::new().route("/{*page}", any(other)))
}

fn below() -> Router {
    Router::new()
        .route("/", any(mcp))
        .route("/{*rest}", any(mcp))
}

fn with(router: Router, guard: Option<Guard>) -> Router {
    match guard {
        Some(guard) => router.layer(guard),
        None => router,
    }
}

fn with_route(route: MethodRouter, guard: Option<Guard>) -> MethodRouter {
    match guard {
        Some(guard) => route.layer(guard),
        None => route,
    }
}

fn reader(read: fn(&str) -> String) -> MethodRouter {
    any(move |original: OriginalUri, request: Request| dispatch(read, original, request))
}

pub(crate) const SHAPES: &[Shape] = &[
    Shape {
        name: "route",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().route("/mcp", any(mcp)), guard),
    },
    Shape {
        name: "route with a slash at its end",
        guarded: &["/mcp/"],
        is_outside: true,
        build: |guard| with(others().route("/mcp/", any(mcp)), guard),
    },
    Shape {
        name: "route and wildcard",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| {
            let router = others().route("/mcp", any(mcp)).route("/mcp/", any(mcp));
            with(router.route("/mcp/{*rest}", any(mcp)), guard)
        },
    },
    Shape {
        name: "route_service",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().route_service("/mcp", any(mcp)), guard),
    },
    Shape {
        name: "parameter, decoded by axum",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| {
            let by_name = any(
                |Path(name): Path<String>, original: OriginalUri, request: Request| {
                    let read = |_: &str| "/mcp".to_owned();
                    async move {
                        match &*name {
                            "mcp" => dispatch(read, original, request).await,
                            _ => other(original, request).await,
                        }
                    }
                },
            );
            with(others().route("/{name}", by_name), guard)
        },
    },
    Shape {
        name: "nest",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().nest("/mcp", below()), guard),
    },
    Shape {
        name: "nest_service",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().nest_service("/mcp", any(mcp)), guard),
    },
    Shape {
        name: "nest in nest",
        guarded: &["/docs/mcp"],
        is_outside: true,
        build: |guard| {
            let docs = Router::new().nest("/mcp", below()).route("/x", any(other));
            let router = Router::new().route("/x", any(other)).nest("/docs", docs);
            with(router, guard)
        },
    },
    Shape {
        name: "merge",
        guarded: &["/x/y", "/mcp"],
        is_outside: true,
        build: |guard| {
            let router = Router::new().route("/mcp/{*rest}", any(mcp));
            with(others().merge(router), guard)
        },
    },
    Shape {
        name: "layer inside nest, with the outer path",
        guarded: &["/mcp"],
        is_outside: false,
        build: |guard| others().nest("/mcp", with(below(), guard)),
    },
    Shape {
        name: "layer inside nest in nest, with the inner path",
        guarded: &["/mcp"],
        is_outside: false,
        build: |guard| {
            let docs = Router::new().nest("/mcp", below()).route("/x", any(other));
            Router::new().nest("/docs", with(docs, guard))
        },
    },
    Shape {
        name: "fallback that decodes, merges and resolves",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().fallback_service(reader(tolerant)), guard),
    },
    Shape {
        name: "fallback that is a gateway",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().fallback_service(reader(gateway)), guard),
    },
    Shape {
        name: "fallback that cuts parameters and decodes twice",
        guarded: &["/mcp"],
        is_outside: true,
        build: |guard| with(others().fallback_service(reader(container)), guard),
    },
    Shape {
        name: "wildcard over everything, layer around the route",
        guarded: &["/mcp"],
        is_outside: false,
        build: |guard| Router::new().route("/{*path}", with_route(reader(tolerant), guard)),
    },
    Shape {
        name: "layer around the service, everything guarded",
        guarded: &[],
        is_outside: false,
        build: |guard| others().nest_service("/mcp", with_route(any(mcp), guard)),
    },
];

/// What came of a request, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn send(app: &Router, path: &str) -> Answer {
    let request = Request::get(path).header("mcp-session-id", "dead");
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap());
    let (parts, body) = response.await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        head: format!("{} {:?}", parts.status, parts.headers),
        body: String::from_utf8(body.into()).unwrap(),
    }
}
