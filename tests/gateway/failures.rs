//! Servers and stores that are away.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    redis_proxy::Proxy,
    rig::{Gateway, PATIENCE, free_port, send, text},
    server::Server,
    support::requests::{delete, get, initialize, post, with_header},
};

fn ask(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "10.1.2.3");
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_server_that_is_away_is_502_and_its_sessions_wait_for_it() {
    let server = Server::new();
    let (address, running) = server.listen(0).await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    running.abort();
    // Connections of the pool may be open for a moment still.
    sleep(Duration::from_secs(3)).await;
    for request in [initialize(), post(&id), get(&id), delete(&id)] {
        let answer = gateway.send(request).await;
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(!answer.headers().contains_key("mcp-session-id"));
        assert_eq!(text(answer).await, "the server is away\n");
    }
    let (_, running) = server.listen(address.port()).await;
    assert_eq!(gateway.status(post(&id)).await, 200);
    running.abort();
}

#[tokio::test]
async fn a_server_that_breaks_off_before_its_head_is_502() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let gateway = Gateway::before(address).await;
    assert_eq!(gateway.status(initialize()).await, 502);
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_504_after_five_seconds() {
    // The system answers nobody while the queue of those to accept is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    for _ in 0..4 {
        let connecting = TcpStream::connect(address);
        match timeout(Duration::from_secs(1), connecting).await {
            Ok(connection) => queue.push(connection.unwrap()),
            Err(_) => break,
        }
    }
    let gateway = Gateway::before(address).await;
    let began = Instant::now();
    assert_eq!(gateway.status(initialize()).await, 504);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(5) && took < PATIENCE,
        "{took:?}"
    );
    drop((queue, listener));
}

#[tokio::test]
async fn an_answer_may_take_its_time_unless_told_otherwise() {
    let (_, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    let slow = with_header(post(&id), "x-do", "six seconds");
    assert_eq!(gateway.status(slow).await, 200);

    let gateway = Gateway::with(address, &["--answer-timeout=200ms"]).await;
    let id = gateway.open().await;
    let slow = with_header(post(&id), "x-do", "wait");
    assert_eq!(gateway.status(slow).await, 504);
    assert_eq!(gateway.status(post(&id)).await, 200, "the session lives");
}

#[tokio::test]
async fn a_node_is_ready_while_its_store_answers_whoever_asks() {
    let Ok(_) = TcpStream::connect(("127.0.0.1", 6379)).await else {
        assert!(std::env::var_os("CI").is_none(), "there is no Redis");
        return eprintln!("SKIPPED: there is no Redis at 127.0.0.1:6379");
    };
    let store = Proxy::to(6379).await;
    let (_, address) = Server::start().await;
    let flags = ["--store", &store.url(), "--cached=5"];
    let gateway = Gateway::with(address, &flags).await;
    let answer = gateway.send(ask("/healthz")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(text(answer).await, "ready\n");
    store.hold(true);
    assert_eq!(gateway.status(ask("/healthz")).await, 503);
    store.hold(false);
    let back = async {
        while gateway.status(ask("/healthz")).await != 200 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("ready again");
}

#[tokio::test]
async fn a_node_that_drains_is_not_ready_and_serves() {
    let (_, address) = Server::start().await;
    let admin = free_port().await;
    let flags = [&*format!("--admin-port={admin}"), "--health-path=/ready"];
    let gateway = Gateway::with(address, &flags).await;
    let id = gateway.open().await;
    assert_eq!(gateway.status(ask("/ready")).await, 200);
    let drain = Request::post("/drain").body(Body::empty()).unwrap();
    let drained = send(([127, 0, 0, 1], admin).into(), drain).await;
    assert_eq!(drained.status(), 204);
    let answer = gateway.send(ask("/ready")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(text(answer).await, "not ready\n");
    assert_eq!(gateway.status(initialize()).await, 503);
    assert_eq!(gateway.status(post(&id)).await, 200);
}
