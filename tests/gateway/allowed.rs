//! Whom it answers to, and whose pages.

use axum::body::Body;
use http::Request;

use crate::{
    rig::{Gateway, text},
    server::Server,
    support::requests::{initialize, with_header},
};

#[tokio::test]
async fn a_name_that_is_not_its_own_is_refused_and_the_server_not_asked() {
    let (server, address) = Server::start().await;
    let flags = ["--allow-host=mcp.example.com"];
    let gateway = Gateway::with(address, &flags).await;
    let own = gateway.address.to_string();
    for allowed in [
        "localhost",
        "LocalHost:1234",
        "127.0.0.1",
        "[::1]:80",
        "MCP.example.com",
        "mcp.example.com:443",
        &own,
    ] {
        let request = with_header(initialize(), "host", allowed);
        assert_eq!(gateway.status(request).await, 200, "{allowed}");
    }
    let before = server.seen().len();
    for refused in [
        "evil.example",
        "localhost.evil.example",
        "example.com",
        "a.mcp.example.com",
        "evil@localhost",
        "127.0.0.2",
        "localhost localhost",
    ] {
        let answer = gateway
            .send(with_header(initialize(), "host", refused))
            .await;
        assert_eq!(answer.status(), 403, "{refused}");
        assert_eq!(text(answer).await, "Host is not allowed\n");
    }
    let mut twice = initialize();
    let evil = "evil.example".parse().unwrap();
    twice.headers_mut().append("host", evil);
    assert_eq!(gateway.status(twice).await, 403);
    let elsewhere = Request::get("/.well-known/oauth-protected-resource");
    let elsewhere = elsewhere.header("host", "evil.example");
    let elsewhere = elsewhere.body(Body::empty()).unwrap();
    assert_eq!(gateway.status(elsewhere).await, 403, "on every path");
    assert_eq!(server.seen().len(), before);
}

#[tokio::test]
async fn a_page_that_is_not_its_own_is_refused_and_the_server_not_asked() {
    let (server, address) = Server::start().await;
    let flags = [
        "--allow-host=mcp.example.com",
        "--allow-origin=https://App.example.com",
    ];
    let gateway = Gateway::with(address, &flags).await;
    for allowed in [
        "http://localhost:6274",
        "http://127.0.0.1",
        "https://mcp.example.com",
        "https://app.example.com",
    ] {
        let request = with_header(initialize(), "origin", allowed);
        assert_eq!(gateway.status(request).await, 200, "{allowed}");
    }
    let before = server.seen().len();
    for refused in [
        "http://evil.example",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://localhost.evil.example",
        "null",
        "",
        "file://localhost",
    ] {
        let answer = gateway
            .send(with_header(initialize(), "origin", refused))
            .await;
        assert_eq!(answer.status(), 403, "{refused}");
        assert_eq!(text(answer).await, "Origin is not allowed\n");
    }
    assert_eq!(server.seen().len(), before);
}
