//! That it answers for sessions at all.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    rig::{Gateway, PATIENCE, text},
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

/// Also of ends that its client had no part in, for which nobody calls with a token.
#[tokio::test]
async fn a_server_that_checks_its_callers_has_no_session_that_the_gateway_has_not() {
    const TOKEN: &str = "Bearer theirs";
    let server = Server::with_token(TOKEN);
    let (address, _) = server.listen(0).await;
    let flags = ["--idle-timeout=2s", "--max-sessions=1"];
    let gateway = Gateway::with(address, &flags).await;
    assert_eq!(gateway.status(initialize()).await, 401);
    let as_theirs = |request| with_header(request, "authorization", TOKEN);
    let open = async || {
        let created = gateway.send(as_theirs(initialize())).await;
        assert_eq!(created.status(), 200);
        let id = created.headers()["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(gateway.status(as_theirs(post(&id))).await, 200);
        id
    };
    let come_to = async |sessions: usize, why: &str| {
        let come = async {
            while server.sessions() != sessions {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, come).await.expect(why);
    };
    let id = open().await;
    assert_eq!(gateway.status(as_theirs(delete(&id))).await, 204);
    assert_eq!(server.sessions(), 0);
    let id = open().await;
    let again = with_header(as_theirs(initialize()), "mcp-session-id", &id);
    assert_eq!(gateway.status(again).await, 200);
    come_to(1, "the one in surplus is ended").await;
    sleep(Duration::from_millis(1_500)).await;
    open().await;
    come_to(1, "the first one is evicted").await;
    come_to(0, "the second one expires").await;
}
