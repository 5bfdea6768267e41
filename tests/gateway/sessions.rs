//! That it answers for sessions at all.

use crate::{
    rig::{Gateway, text},
    server::Server,
    support::{
        answers::NOT_FOUND,
        requests::{delete, get, on, post, with_header},
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
    let created = as_user(crate::support::requests::initialize(), "Bearer a");
    let created = gateway.send(created).await;
    let id = created.headers()["mcp-session-id"].to_str().unwrap();
    let before = server.seen().len();
    assert_eq!(gateway.status(as_user(post(id), "Bearer b")).await, 404);
    assert_eq!(server.seen().len(), before);
    assert_eq!(gateway.status(as_user(post(id), "Bearer a")).await, 200);
}
