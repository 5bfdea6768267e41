//! What becomes of headers, paths and bodies.

use axum::body::Body;
use http::Request;

use crate::{
    rig::{Gateway, text},
    server::Server,
    support::{
        answers::lines,
        requests::{INITIALIZE, initialize, post, request, with_header},
    },
};

fn get(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "localhost");
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn other_paths_and_all_headers_pass() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;

    let asked = get("/.well-known/oauth-protected-resource/mcp?a=1%20b");
    let asked = with_header(asked, "x-mine", "kept");
    assert_eq!(gateway.status(asked).await, 200);
    let head = server.seen().pop().unwrap();
    let path = head.uri.path_and_query().unwrap().as_str();
    assert_eq!(path, "/.well-known/oauth-protected-resource/mcp?a=1%20b");
    assert_eq!(head.headers["x-mine"], "kept");

    let answer = gateway.send(get("/headers")).await;
    assert_eq!(answer.status(), 418);
    assert_eq!(lines(answer.headers(), "x-many"), ["one", "two"]);
    let challenge = "Bearer resource_metadata=\"x\"";
    assert_eq!(answer.headers()["www-authenticate"], challenge);
    assert_eq!(answer.headers()["content-length"], "3");
    assert_eq!(text(answer).await, "tea");

    let echo = request("PUT").uri("/echo").body("said".into()).unwrap();
    assert_eq!(text(gateway.send(echo).await).await, "said");
}

#[tokio::test]
async fn what_is_said_to_the_next_hop_alone_stops_there() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let mut asked = get("/headers");
    for (name, value) in [
        ("connection", "keep-alive, X-Secret , te, host"),
        ("x-secret", "for the gateway alone"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("x-kept", "kept"),
    ] {
        asked = with_header(asked, name, value);
    }
    let answer = gateway.send(asked).await;
    let seen = server.last();
    for name in [
        "connection",
        "x-secret",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-authorization",
        "proxy-connection",
    ] {
        assert!(!seen.contains_key(name), "{name}");
    }
    assert_eq!(seen["x-kept"], "kept");
    for name in ["x-mine", "keep-alive"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
}

/// Whoever checks a request sees what the server will see.
#[tokio::test]
async fn a_session_id_for_the_next_hop_alone_is_none() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    let before = server.seen().len();
    let hidden = with_header(post(&id), "connection", "mcp-session-id");
    assert_eq!(gateway.status(hidden).await, 400);
    assert_eq!(server.seen().len(), before);
    assert_eq!(gateway.status(post(&id)).await, 200);
}

#[tokio::test]
async fn the_server_is_called_by_its_own_name_and_told_the_other() {
    let (server, address) = Server::start().await;
    let flags = ["--allow-host=mcp.example.com"];
    let gateway = Gateway::with(address, &flags).await;
    let mut asked = get("/cors");
    for (name, value) in [
        ("host", "mcp.example.com:8443"),
        ("origin", "https://mcp.example.com"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "for=6.6.6.6"),
    ] {
        asked = with_header(asked, name, value);
    }
    let answer = gateway.send(asked).await;
    let seen = server.last();
    assert_eq!(lines(&seen, "host"), [address.to_string()]);
    assert_eq!(lines(&seen, "origin"), [format!("http://{address}")]);
    assert_eq!(lines(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(lines(&seen, "x-forwarded-host"), ["mcp.example.com:8443"]);
    assert_eq!(lines(&seen, "x-forwarded-proto"), ["http"]);
    assert!(!seen.contains_key("x-forwarded-prefix") && !seen.contains_key("forwarded"));
    // The page's browser knows nothing of the other name.
    let told = &answer.headers()["access-control-allow-origin"];
    assert_eq!(told, "https://mcp.example.com");
}

#[tokio::test]
async fn behind_a_proxy_of_ours_its_word_is_passed_on() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::with(address, &["--behind-proxy"]).await;
    let mut asked = get("/echo");
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.7"),
        ("x-forwarded-host", "mcp.example.com"),
        ("x-forwarded-proto", "https"),
    ] {
        asked = with_header(asked, name, value);
    }
    gateway.send(asked).await;
    let seen = server.last();
    assert_eq!(lines(&seen, "x-forwarded-for"), ["10.0.0.7, 127.0.0.1"]);
    assert_eq!(lines(&seen, "x-forwarded-host"), ["mcp.example.com"]);
    assert_eq!(lines(&seen, "x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_redirect_to_the_server_leads_through_the_gateway() {
    let (_, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let answer = gateway.send(get("/moved")).await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "/moved/?here");
    let answer = gateway.send(get("/elsewhere")).await;
    assert_eq!(answer.headers()["location"], "http://elsewhere.example/");
}

#[tokio::test]
async fn credentials_go_to_whoever_asks_for_them() {
    let (server, address) = Server::start().await;
    let bearer = |request| with_header(request, "authorization", "Bearer s3cret");

    let gateway = Gateway::before(address).await;
    gateway.send(bearer(initialize())).await;
    assert_eq!(server.last()["authorization"], "Bearer s3cret");

    let gateway = Gateway::with(address, &["--auth=s3cret=alice"]).await;
    let before = server.seen().len();
    assert_eq!(gateway.status(initialize()).await, 401);
    assert_eq!(gateway.status(get("/echo")).await, 401);
    assert_eq!(server.seen().len(), before);
    assert_eq!(gateway.status(bearer(initialize())).await, 200);
    assert!(!server.last().contains_key("authorization"));
}

#[tokio::test]
async fn a_body_that_is_held_back_until_it_is_asked_for_arrives() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let held = with_header(initialize(), "expect", "100-continue");
    assert_eq!(gateway.status(held).await, 200);
    let seen = server.last();
    assert!(!seen.contains_key("expect"));
    assert_eq!(seen["content-length"], INITIALIZE.len().to_string());
}
