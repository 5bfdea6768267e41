//! Clients that reset their connection before they got the answer to `initialize`: nobody has the ids of those sessions.

use std::time::Duration;

use axum::{Router, body::Body};
use http::{Method, Request, Response};
use mcp_session_layer::{MemoryStore, SessionEvent, Sessions, store::EndReason};
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use support::{
    answers::{RESULT, id_of},
    layer::layer,
    requests::{INITIALIZE, initialize, post},
    rmcp_server::rmcp_server,
    sockets::serve,
    time::{HOUR, MINUTE, SECOND, settled},
};

mod support;

const RESETS: usize = 2_000;

/// Sends an `initialize`, and resets the connection before there is an answer.
async fn send_and_reset(addr: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{INITIALIZE}",
        INITIALIZE.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // So that the server has begun.
    sleep(Duration::from_millis(2)).await;
    stream.set_zero_linger().unwrap();
}

/// What an inner service waits for, so that no answer is faster than its client's reset.
#[derive(Clone)]
struct Rounds(watch::Sender<usize>);

impl Rounds {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    async fn over(&self) {
        let mut round = self.0.subscribe();
        let now = *round.borrow();
        round.wait_for(|round| *round > now).await.unwrap();
    }

    async fn reset_many(self, app: Router) {
        let addr = serve(app).await;
        for _ in 0..RESETS / 50 {
            let resets = (0..50).map(|_| tokio::spawn(send_and_reset(addr)));
            for reset in resets.collect::<Vec<_>>() {
                reset.await.unwrap();
            }
            self.0.send_modify(|round| *round += 1);
        }
        // What comes late is not kept waiting.
        for _ in 0..50 {
            sleep(Duration::from_millis(20)).await;
            self.0.send_modify(|round| *round += 1);
        }
    }
}

/// Waits until no more than a few sessions are left: where the machine is so busy that the system's word of a reset comes
/// only when the answer is being written, nobody can tell. Says how many are left.
async fn until_hardly_any_is_left(sessions: &Sessions) -> u64 {
    let mut left = u64::MAX;
    for _ in 0..60 {
        left = sessions.count().await.unwrap();
        if left == 0 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!("{left} of {RESETS} sessions are left");
    assert!(left <= RESETS as u64 / 100, "{left} sessions are left");
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_leave_no_session_in_the_store() {
    let layer = layer(MemoryStore::new());
    let sessions = layer.sessions();
    let rounds = Rounds::new();
    let over = rounds.clone();
    let inner = service_fn(move |_: Request<Body>| {
        let over = over.clone();
        async move {
            over.over().await;
            let response = Response::builder().header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(RESULT)).unwrap())
        }
    });
    let mut events = sessions.subscribe();
    let created = tokio::spawn(async move {
        let mut created = 0;
        while let Ok(Some(event)) = timeout(SECOND * 3, events.next()).await {
            match event {
                SessionEvent::Created { .. } => created += 1,
                SessionEvent::Missed(missed) => created += missed / 2,
                _ => {}
            }
        }
        created
    });
    let app = Router::new().route_service("/mcp", layer.layer(inner));
    rounds.reset_many(app).await;
    until_hardly_any_is_left(&sessions).await;
    let created = created.await.unwrap();
    assert!(created > RESETS as u64 / 2, "{created} sessions were there");
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_leave_no_session_in_rmcp() {
    let layer = layer(MemoryStore::new());
    let sessions = layer.sessions();
    let (mcp, manager) = rmcp_server(StreamableHttpServerConfig::default());
    let rounds = Rounds::new();
    let over = rounds.clone();
    let slow = service_fn(move |request: Request<Body>| {
        let (mcp, over) = (mcp.clone(), over.clone());
        async move {
            if request.method() == Method::POST {
                over.over().await;
            }
            mcp.oneshot(request).await
        }
    });
    let app = Router::new().route_service("/mcp", layer.layer(slow));
    rounds.reset_many(app).await;
    let left = until_hardly_any_is_left(&sessions).await;
    for _ in 0..300 {
        if manager.sessions.read().await.len() as u64 <= left {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{} sessions are left", manager.sessions.read().await.len());
}

fn json() -> Router {
    Router::new().route_service(
        "/mcp",
        service_fn(async |_: Request<Body>| {
            let response = Response::builder().header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(RESULT)).unwrap())
        }),
    )
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_dropped_unread_ends_its_session_unless_that_is_used() {
    // So short that the store's times do not show a first touch that comes at once.
    for idle in [HOUR, MINUTE] {
        an_unread_answer(idle).await;
    }
}

async fn an_unread_answer(idle: Duration) {
    let layer = layer(MemoryStore::new()).with_idle_timeout(idle);
    let sessions = layer.sessions();
    let mut events = sessions.subscribe();
    let service = layer.layer(json());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = service.clone().oneshot(initialize()).await.unwrap();
        ids.push(id_of(&answer).unwrap());
    }
    let used = service.clone().oneshot(post(&ids[1])).await.unwrap();
    assert_eq!(used.status(), 200);
    settled().await;
    assert_eq!(sessions.count().await.unwrap(), 2);
    sleep(2 * SECOND).await;
    assert_eq!(sessions.count().await.unwrap(), 1);
    let used = service.clone().oneshot(post(&ids[1])).await.unwrap();
    assert_eq!(used.status(), 200, "somebody has that id");
    let mut reason = None;
    for _ in 0..3 {
        if let Some(SessionEvent::Ended { reason: why, .. }) = events.next().await {
            reason = Some(why);
        }
    }
    assert_eq!(reason, Some(EndReason::Undelivered));
}
