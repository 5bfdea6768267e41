//! What was sent inward is seen through, whoever hangs up: the inner service and the store hold the same sessions in the
//! end. Over real sockets and with a real MCP server, because it goes wrong between two awaits.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::{Future, pending},
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response};
use mcp_session_layer::{
    MemoryStore, Scope, SessionId, SessionRef,
    store::{Directory as _, SessionFilter},
};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    runtime::Runtime,
    time::{Instant, sleep, timeout},
};
use tokio_test::{assert_pending, task};
use tower::{Layer as _, ServiceExt as _, service_fn};

use support::{
    answers::{id_of, send},
    layer::layer,
    requests::{INITIALIZE, delete, initialize, post, with_header},
    rmcp_server::rmcp_server,
    sockets::serve,
    store::TestStore,
};

mod support;

/// rmcp's server behind the layer, on a socket.
struct Server {
    addr: SocketAddr,
    app: Router,
    store: MemoryStore,
    calls: TestStore,
    inner: Arc<LocalSessionManager>,
}

impl Server {
    async fn start() -> Self {
        let store = TestStore::default().without_feed().with_delay(A_MOMENT);
        let (mcp, inner) = rmcp_server(Default::default());
        let app = Router::new().route_service("/mcp", layer(store.clone()).layer(mcp));
        let addr = serve(app.clone()).await;
        Self {
            addr,
            app,
            store: store.memory.clone(),
            calls: store,
            inner,
        }
    }

    /// Sends a request and resets the connection that much later. Says whether an answer had come by then.
    async fn hang_up_on(&self, request: &str, after: Duration) -> bool {
        let mut client = TcpStream::connect(self.addr).await.unwrap();
        client.set_zero_linger().unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        sleep(after).await;
        matches!(client.try_read(&mut [0; 16]), Ok(1..))
    }

    /// The sessions of the inner service and those of the store, once nothing changes any more.
    async fn settled(&self) -> (BTreeSet<SessionRef>, BTreeSet<SessionRef>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut before = None;
        loop {
            let now = (self.held_inside().await, self.recorded().await);
            if before.as_ref() == Some(&now) || Instant::now() > deadline {
                return now;
            }
            before = Some(now);
            sleep(QUIET).await;
        }
    }

    async fn held_inside(&self) -> BTreeSet<SessionRef> {
        let sessions = self.inner.sessions.read().await;
        let ids = sessions.keys().map(|id| id.parse::<SessionId>().unwrap());
        ids.map(|id| id.reference()).collect()
    }

    async fn recorded(&self) -> BTreeSet<SessionRef> {
        let all = SessionFilter::Scope(Scope::default());
        let listed = self.store.list(&all, None, usize::MAX).await.unwrap();
        listed.into_iter().map(|entry| entry.reference).collect()
    }

    /// For a client that stays.
    async fn initialize(&self) {
        send(&self.app, initialize()).await.id();
    }
}

/// Some hang up before their request is read, some while the store is asked, while the inner service answers, while
/// the store is told, and some after the answer.
fn impatience(nth: usize) -> Duration {
    Duration::from_micros((nth as u64 * 37) % 5000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_created_and_terminated_alike_in_the_store_and_inside() {
    let server = &Server::start().await;

    let length = INITIALIZE.len();
    let initialize = &format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{INITIALIZE}"
    );
    let answered = stream::iter(0..CLIENTS)
        .map(|nth| server.hang_up_on(initialize, impatience(nth)))
        .buffer_unordered(AT_ONCE)
        .filter(|answered| std::future::ready(*answered))
        .count()
        .await;
    let (inside, recorded) = server.settled().await;
    let created = server.calls.take_counts()["create"];
    println!(
        "{CLIENTS} initialize requests: {answered} answered, {created} sessions created, {} left",
        inside.len()
    );
    assert_eq!(inside.len(), recorded.len());
    assert_eq!(inside, recorded);
    assert!(
        created > answered + CLIENTS / 20,
        "nobody hung up in between"
    );
    assert!(
        inside.len() < created,
        "what nobody can have got is not kept"
    );

    let made = inside.len();
    let more = stream::iter(made..CLIENTS).map(|_| server.initialize());
    more.buffer_unordered(AT_ONCE).collect::<()>().await;
    let ids: Vec<_> = server.inner.sessions.read().await.keys().cloned().collect();
    let before = server.recorded().await.len();
    let answered = stream::iter(ids.iter().enumerate())
        .map(async |(nth, id)| {
            let delete = format!(
                "DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {id}\r\n\
                 mcp-protocol-version: 2025-11-25\r\n\r\n"
            );
            server.hang_up_on(&delete, impatience(nth)).await
        })
        .buffer_unordered(AT_ONCE)
        .filter(|answered| std::future::ready(*answered))
        .count()
        .await;
    let (inside, recorded) = server.settled().await;
    let ended = before - recorded.len();
    println!("{CLIENTS} DELETE requests: {answered} answered, {ended} sessions terminated");
    assert_eq!(inside.len(), recorded.len());
    assert_eq!(inside, recorded);
    assert!(ended > answered + CLIENTS / 20, "nobody hung up in between");
}

#[tokio::test]
async fn a_panic_of_the_inner_service_is_the_callers() {
    let panics = service_fn(async |request: Request<Body>| {
        match request.headers().get("x-panic") {
            Some(_) if request.method() == "POST" => panic!("at initialize"),
            Some(_) => panic!("at DELETE"),
            None => {}
        }
        let mut response = Response::new(Body::empty());
        let id = SessionId::issue().to_header();
        response.headers_mut().insert("mcp-session-id", id);
        Ok::<_, Infallible>(response)
    });
    let service = layer(MemoryStore::new()).layer(panics);

    let fatal = with_header(initialize(), "x-panic", "1");
    let answer = service.clone().oneshot(fatal);
    assert_eq!(panic_of(answer).await, "at initialize");
    let answer = service.clone().oneshot(initialize()).await.unwrap();
    let id = id_of(&answer).unwrap();

    let fatal = with_header(delete(&id), "x-panic", "1");
    let answer = service.clone().oneshot(fatal);
    assert_eq!(panic_of(answer).await, "at DELETE");
    // It was not terminated, so it lives.
    assert_eq!(send(&service, post(&id)).await.status, 200);
}

async fn panic_of<T: std::fmt::Debug>(answer: impl Future<Output = T>) -> String {
    let panic = AssertUnwindSafe(answer)
        .catch_unwind()
        .await
        .expect_err("a panic");
    (*panic.downcast::<&str>().expect("its own words")).to_owned()
}

#[test]
fn a_runtime_that_shuts_down_leaves_nobody_waiting() {
    let calls = Arc::new(AtomicUsize::new(0));
    let endless = service_fn({
        let calls = Arc::clone(&calls);
        move |_: Request<Body>| {
            calls.fetch_add(1, Relaxed);
            pending::<Result<Response<Body>, Infallible>>()
        }
    });
    let service = layer(MemoryStore::new()).layer(endless);
    let (serving, asking) = (Runtime::new().unwrap(), Runtime::new().unwrap());

    let mut answer = task::spawn(service.oneshot(initialize()));
    serving.block_on(async {
        while calls.load(Relaxed) == 0 {
            assert_pending!(answer.poll());
            sleep(A_MOMENT).await;
        }
    });
    let gone = std::thread::spawn(move || drop(serving));
    let answer = asking.block_on(async { timeout(Duration::from_secs(30), answer).await });
    let answer = answer.expect("an answer").unwrap();
    assert_eq!(answer.status(), 503);
    gone.join().unwrap();
}

const CLIENTS: usize = 2000;
const AT_ONCE: usize = 64;
/// How long the store takes for each verb.
const A_MOMENT: Duration = Duration::from_millis(2);
/// Far longer than any step of creating or terminating a session takes.
const QUIET: Duration = Duration::from_millis(1500);
