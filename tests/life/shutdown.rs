//! Drain and shut down.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mcp_session_layer::RejectionKind;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    inner::scripted,
    node::Node,
    reading::stays_silent,
    support::{
        answers::kind_of,
        requests::{delete, get, initialize, post},
        store::TestStore,
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_new_sessions_and_serves_everything_else() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let mut begun = Box::pin(node.send(scripted(initialize(), "wait")));
    set_off(&mut begun).await;
    node.inner.until_waiting(1).await;
    let mut stream = node.open(&id).await;
    node.layer.sessions().drain();

    let refused = node.send(initialize()).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(kind_of(&refused), Some(RejectionKind::Draining));
    assert_eq!(
        node.inner.sessions.lock().len(),
        1,
        "the inner service was not asked"
    );
    node.inner.gate.add_permits(1);
    assert_eq!(
        begun.await.status(),
        503,
        "nor is an initialize that began before created"
    );

    assert_eq!(node.post(&id).await, 200);
    assert!(stays_silent(&mut stream, HOUR).await);
    drop(node.open(&id).await);
    assert_eq!(node.delete(&id).await, 204);
    sleep(SECOND).await;
    assert!(node.inner.sessions.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_ends_get_streams_and_waits_for_answers() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = Node::new(&store);
        let id = node.initialize().await;
        let mut standing = node.open(&id).await;
        let unread = node.open(&id).await;
        let mut answer = node.send(scripted(post(&id), "stream")).await.into_body();
        let mut slow = Box::pin(node.send(scripted(post(&id), "wait")));
        set_off(&mut slow).await;

        let sessions = node.layer.sessions();
        let down = tokio::spawn(async move { sessions.shut_down(MINUTE).await });
        sleep(SECOND).await;
        assert!(standing.frame().await.is_none());
        assert_eq!(node.inner.bodies(), 1);
        let refused = node.send(get(&id)).await;
        assert_eq!(refused.status(), 503, "never 404: the session lives");
        assert_eq!(node.post(&id).await, 200);
        assert!(stays_silent(&mut answer, 10 * SECOND).await);
        assert!(!down.is_finished());

        node.inner.gate.add_permits(1);
        assert_eq!(slow.await.status(), 200);
        node.inner.streams.lock().clear();
        assert!(answer.frame().await.is_none());
        sleep(SECOND).await;
        assert!(down.is_finished(), "as soon as nothing is under way");
        assert_eq!(node.post(&id).await, 200, "late, and in time");
        drop(unread);
        assert!(
            store.peek(&id).await.is_some(),
            "the store outlives the process"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_finished_in_time_is_cut_off() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = Node::new(&store);
        let id = node.initialize().await;
        let _stream = node.send(scripted(post(&id), "stream")).await.into_body();
        let waiting = |request| {
            let node = node.clone();
            tokio::spawn(async move { node.send(scripted(request, "wait")).await })
        };
        let answers = [waiting(post(&id)), waiting(initialize())];
        node.inner.until_waiting(2).await;

        let start = Instant::now();
        node.layer.sessions().shut_down(MINUTE).await;
        assert_eq!(start.elapsed(), MINUTE);
        assert_eq!(node.inner.bodies(), 0);
        for answer in answers {
            let answer = timeout(SECOND, answer).await.expect("at once").unwrap();
            assert_eq!(answer.status(), 503);
            assert_eq!(kind_of(&answer), Some(RejectionKind::Draining));
        }
        let late = node.send(scripted(post(&id), "wait"));
        let late = timeout(SECOND, late).await.expect("at once");
        assert_eq!(late.status(), 503);
        let late = node.send(scripted(post(&id), "stream")).await;
        assert_eq!(late.status(), 503);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_has_the_rest_of_the_time() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    node.layer.sessions().shut_down(MINUTE).await;
    let start = Instant::now();
    let late = timeout(HOUR, node.send(scripted(post(&id), "wait"))).await;
    assert_eq!(late.expect("is cut off").status(), 503);
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_a_session_that_ended_is_waited_for_too() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let mut slow = Box::pin(node.send(scripted(post(&id), "wait")));
    set_off(&mut slow).await;
    node.delete(&id).await;
    let sessions = node.layer.sessions();
    let down = tokio::spawn(async move { sessions.shut_down(MINUTE).await });
    sleep(10 * SECOND).await;
    assert!(!down.is_finished());
    node.inner.gate.add_permits(1);
    assert_eq!(slow.await.status(), 200);
}

/// A server that stops gracefully when told so.
struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<Duration>,
    stopped: JoinHandle<()>,
}

async fn serve(node: &Node) -> Server {
    let app = Router::new().route_service("/mcp", node.service.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, told) = oneshot::channel();
    let sessions = node.layer.sessions();
    let signal = async move {
        let grace = told.await.unwrap();
        tokio::spawn(async move { sessions.shut_down(grace).await });
    };
    let stopped = tokio::spawn(async move {
        let serving = axum::serve(listener, app).with_graceful_shutdown(signal);
        serving.await.unwrap();
    });
    Server {
        addr,
        stop,
        stopped,
    }
}

async fn connect(addr: SocketAddr) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

type Answer = http::Response<hyper::body::Incoming>;

async fn ask(addr: SocketAddr, request: Request<Body>) -> Answer {
    connect(addr).await.send_request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_on_one_socket_ends_the_stream_on_another() {
    let node = Node::new(&TestStore::default());
    let server = serve(&node).await;
    let id = node.initialize().await;
    let mut stream = ask(server.addr, get(&id)).await;
    assert_eq!(stream.status(), 200);
    let event = node.inner.streams.lock()[0].send("data: 1\n\n".into());
    event.unwrap();
    let first = stream.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n");

    let start = Instant::now();
    assert_eq!(ask(server.addr, delete(&id)).await.status(), 204);
    let rest = stream.into_body().collect();
    let rest = timeout(10 * SECOND, rest).await.expect("ends");
    assert_eq!(rest.expect("cleanly").to_bytes(), "");
    println!("ended after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_thousand_streams_open_axum_stops_within_the_grace_time() {
    const STREAMS: usize = 1_000;
    // Many systems do not give 2,048 sockets to a process, so these share connections.
    const PER_CONNECTION: usize = 100;
    const GRACE: Duration = Duration::from_secs(30);
    let node = Node::new(&TestStore::default());
    let server = serve(&node).await;
    let id = node.initialize().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS / PER_CONNECTION {
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        for _ in 0..PER_CONNECTION {
            let uri = format!("http://localhost:{}/mcp", server.addr.port());
            let mut request = get(&id);
            request.headers_mut().remove("host");
            *request.uri_mut() = uri.parse().unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            streams.push(answer.into_body());
        }
    }
    let lone = ask(server.addr, get(&id)).await;
    let addr = server.addr;
    let request = scripted(post(&id), "wait");
    let answer = tokio::spawn(async move { ask(addr, request).await });
    node.inner.until_waiting(1).await;

    let start = Instant::now();
    server.stop.send(GRACE).unwrap();
    let ends = futures_util::future::join_all(streams.into_iter().map(BodyExt::collect));
    for end in timeout(GRACE, ends).await.expect("all streams end") {
        assert!(end.expect("cleanly").to_bytes().is_empty());
    }
    assert!(lone.into_body().collect().await.is_ok());
    node.inner.gate.add_permits(1);
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200, "an answer in flight is not lost");
    assert!(
        !answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    timeout(GRACE, server.stopped)
        .await
        .expect("axum stops")
        .unwrap();
    println!("{STREAMS} streams: stopped after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_does_not_keep_axum_from_stopping() {
    let node = Node::new(&TestStore::default());
    let server = serve(&node).await;
    let id = node.initialize().await;
    let addr = server.addr;
    let request = scripted(post(&id), "wait");
    let answer = tokio::spawn(async move { ask(addr, request).await.status() });
    node.inner.until_waiting(1).await;
    server.stop.send(SECOND).unwrap();
    timeout(20 * SECOND, server.stopped)
        .await
        .expect("axum stops")
        .unwrap();
    assert_eq!(answer.await.unwrap(), 503);
}
