//! A file that outlives the process, before an inner service that does not.

use std::num::NonZeroU64;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use mcp_session_layer::McpSessionLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::File;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;

#[tokio::test]
async fn a_client_whose_session_was_forgotten_gets_the_only_place_at_once() {
    let file = File::new();
    let mut last: Option<String> = None;
    for round in 0..7 {
        // Each time another process: it knows the sessions that it has issued itself.
        let issued = uuid::Uuid::new_v4().to_string();
        let known = issued.clone();
        let inner = service_fn(move |request: Request<Body>| {
            let id = request.headers().get("mcp-session-id").cloned();
            let mut response = Response::new(Body::from(r#"{"id":1,"result":{}}"#));
            let headers = response.headers_mut();
            headers.insert("content-type", "application/json".parse().unwrap());
            match id {
                Some(id) if id != known.as_str() => {
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                }
                Some(_) => {}
                None => drop(headers.insert("mcp-session-id", known.parse().unwrap())),
            }
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let layer = McpSessionLayer::new(file.store().await).with_max_sessions(NonZeroU64::MIN);
        let service = layer.layer(inner);
        let send = |id: Option<String>, body: &'static str| {
            let mut request = Request::post("/mcp").header("host", "localhost");
            if let Some(id) = id {
                request = request.header("mcp-session-id", id);
            }
            service
                .clone()
                .oneshot(request.body(Body::from(body)).unwrap())
        };
        if let Some(last) = last {
            let old = send(Some(last), "{}").await.unwrap();
            assert_eq!(old.status(), StatusCode::NOT_FOUND, "{round}");
        }
        let created = send(None, INITIALIZE).await.unwrap();
        assert_eq!(created.status(), StatusCode::OK, "{round}");
        assert_eq!(created.headers()["mcp-session-id"], issued.as_str());
        last = Some(issued);
    }
}
