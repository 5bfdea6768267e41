//! That it answers for sessions at all.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    rig::{Gateway, PATIENCE, free_port, send, text},
    server::Server,
    support::{
        answers::NOT_FOUND,
        requests::{delete, get, initialize, on, post, with_header},
    },
};

#[tokio::test]
async fn a_dead_id_is_404_and_the_server_is_not_asked() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::with(address, &["--path=/mcp", "--path=/other"]).await;
    let id = gateway.open().await;
    assert_eq!(gateway.status(post(&id)).await, 200);
    assert_eq!(gateway.status(delete(&id)).await, 204);
    let before = server.seen().len();
    for id in [&*id, "never-was"] {
        for method in ["POST", "GET", "DELETE"] {
            let answer = gateway.send(on(id, method)).await;
            assert_eq!(answer.status(), 404, "{method}");
            assert_eq!(text(answer).await, NOT_FOUND);
        }
        let mut other = get(id);
        *other.uri_mut() = "/other/below".parse().unwrap();
        assert_eq!(gateway.status(other).await, 404);
    }
    assert_eq!(server.seen().len(), before);
}

#[tokio::test]
async fn a_session_is_its_caller_s_alone() {
    let (server, address) = Server::start().await;
    let flags = ["--auth=a=alice", "--auth=b=bob"];
    let gateway = Gateway::with(address, &flags).await;
    let as_user = |request, token| with_header(request, "authorization", token);
    let created = as_user(initialize(), "Bearer a");
    let created = gateway.send(created).await;
    let id = created.headers()["mcp-session-id"].to_str().unwrap();
    let before = server.seen().len();
    assert_eq!(gateway.status(as_user(post(id), "Bearer b")).await, 404);
    assert_eq!(server.seen().len(), before);
    assert_eq!(gateway.status(as_user(post(id), "Bearer a")).await, 200);
}

const TOKEN: &str = "Bearer theirs";

fn as_theirs(request: Request<Body>) -> Request<Body> {
    with_header(request, "authorization", TOKEN)
}

/// Opens a session at a server that wants the token, and uses it.
async fn open(gateway: &Gateway) -> String {
    let created = gateway.send(as_theirs(initialize())).await;
    assert_eq!(created.status(), 200);
    let id = created.headers()["mcp-session-id"].to_str().unwrap();
    assert_eq!(gateway.status(as_theirs(post(id))).await, 200);
    id.to_owned()
}

async fn come_to(server: &Server, sessions: usize, why: &str) {
    let come = async {
        while server.sessions() != sessions {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, come).await.expect(why);
}

/// Also of ends that its client had no part in, for which nobody calls with a token.
#[tokio::test]
async fn a_server_that_checks_its_callers_has_no_session_that_the_gateway_has_not() {
    let server = Server::with_token(TOKEN);
    let (address, _) = server.listen(0).await;
    let flags = ["--idle-timeout=2s", "--max-sessions=1"];
    let gateway = Gateway::with(address, &flags).await;
    assert_eq!(gateway.status(initialize()).await, 401);
    let id = open(&gateway).await;
    assert_eq!(gateway.status(as_theirs(delete(&id))).await, 204);
    assert_eq!(server.sessions(), 0);
    let id = open(&gateway).await;
    let again = with_header(as_theirs(initialize()), "mcp-session-id", &id);
    assert_eq!(gateway.status(again).await, 200);
    come_to(&server, 1, "the one in surplus is ended").await;
    sleep(Duration::from_millis(1_500)).await;
    open(&gateway).await;
    come_to(&server, 1, "the first one is evicted").await;
    come_to(&server, 0, "the second one expires").await;
}

#[tokio::test]
async fn what_an_operator_ends_ends_in_a_server_that_checks_its_callers() {
    let server = Server::with_token(TOKEN);
    let (address, _) = server.listen(0).await;
    let admin = free_port().await;
    let gateway = Gateway::with(address, &[&*format!("--admin-port={admin}")]).await;
    let at_admin = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let answer = send(([127, 0, 0, 1], admin).into(), request).await;
        assert!(answer.status().is_success(), "{method} {path}");
        text(answer).await
    };

    let ids = [open(&gateway).await, open(&gateway).await];
    let listed: Value = serde_json::from_str(&at_admin("GET", "/sessions").await).unwrap();
    let reference = listed[0]["reference"].as_str().unwrap();
    at_admin("DELETE", &format!("/sessions/{reference}")).await;
    come_to(&server, 1, "the one that was named is ended").await;
    open(&gateway).await;
    assert_eq!(at_admin("DELETE", "/sessions").await, r#"{"ended":2}"#);
    come_to(&server, 0, "and all there are").await;
    for id in &ids {
        assert_eq!(gateway.status(as_theirs(post(id))).await, 404);
    }
}
