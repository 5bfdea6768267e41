//! In a tower stack, without axum.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use mcp_session_layer::{MemoryStore, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{BoxError, ServiceBuilder};

use crate::support::{
    answers::RESULT,
    layer::layer,
    requests::{INITIALIZE, PING},
    time::HOUR,
};

#[tokio::test]
async fn it_stands_in_a_tower_stack_without_a_router() {
    // Other bodies than axum's on both sides.
    let service = ServiceBuilder::new()
        .map_request(|request: Request<hyper::body::Incoming>| request)
        .concurrency_limit(8)
        .layer(layer(MemoryStore::new()))
        .timeout(HOUR)
        .service_fn(async |request: Request<Body>| {
            assert!(request.extensions().get::<Session>().is_none());
            let mut response = Response::new(Full::new(Bytes::from_static(RESULT.as_bytes())));
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            Ok::<_, BoxError>(response)
        });
    let (mut client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(service)),
    );
    let head = |more: &str, body: &str| {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n{body}")
    };
    let dead = head("mcp-session-id: dead\r\n", PING);
    let initialize = head("connection: close\r\n", INITIALIZE);
    client.write_all(dead.as_bytes()).await.unwrap();
    client.write_all(initialize.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    let (refusal, created) = answers.split_once("not found\"}}").unwrap();
    assert!(refusal.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(created.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(created.contains("\r\nmcp-session-id: "), "{answers}");
}
