//! Bodies that the layer looks at, over real sockets: they arrive as they were sent, whatever else is under way, and what
//! is held of them has a bound.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response, routing};
use futures_util::{future::join_all, stream};
use http_body_util::BodyExt as _;
use mcp_session_layer::{MemoryStore, Sessions};
use tokio::time::sleep;
use tower::Layer as _;

use support::{
    answers::UNAVAILABLE,
    layer::{SessionLayer, layer},
    requests::{INITIALIZE, PING},
    sockets::serve,
    time::eventually,
    wire::{Http1, Http2, Reply},
};

mod support;

/// Serves a handler behind a layer.
async fn server<H, F>(layer: SessionLayer, handler: H) -> (SocketAddr, Sessions)
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let sessions = layer.sessions();
    let guarded = layer.layer(routing::any(handler));
    let app = Router::new().route_service("/mcp", guarded);
    (serve(app).await, sessions)
}

async fn count(sessions: &Sessions) -> u64 {
    sessions.count().await.unwrap()
}

fn json(status: u16, ids: &[&str], body: Body) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    for id in ids {
        response = response.header("mcp-session-id", *id);
    }
    response.body(body).unwrap()
}

/// A POST as it stands on the wire.
fn post(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: mcp.test\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into()
}

async fn ask(addr: SocketAddr, headers: &str, body: &str) -> Reply {
    let mut client = Http1::connect(addr).await;
    client.send(&post(headers, body)).await.unwrap();
    client.reply().await.unwrap()
}

/// A client without a session that sends so many bytes of so many, and then nothing more.
async fn falls_silent(addr: SocketAddr, sends: usize, of: usize) -> Http1 {
    let mut client = Http1::connect(addr).await;
    let head = format!("POST /mcp HTTP/1.1\r\nHost: mcp.test\r\nContent-Length: {of}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    client.send(&vec![b' '; sends]).await.unwrap();
    client
}

const LIVE: &str = "Mcp-Session-Id: theirs\r\n";
const LIMIT: usize = 64 << 10;
/// What all bodies may take, 16 MiB, in bodies.
const CLIENTS: usize = (16 << 20) / LIMIT;

/// 256 clients keep all but 256 bytes of the shared budget. What is longer than that is answered whole, or clearly not.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_budget_is_spent_answers_arrive_whole() {
    let result = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":"{}"}}}}"#,
        "x".repeat(2_000)
    );
    let gone = format!(
        r#"{{"jsonrpc":"2.0","error":{{"code":-32001,"message":"{}"}}}}"#,
        "x".repeat(2_000)
    );
    let (answer, not_found) = (result.clone(), gone.clone());
    let issued = Arc::new(AtomicUsize::new(0));
    let (addr, sessions) = server(layer(MemoryStore::new()), move |request: Request| {
        let (answer, not_found, issued) = (answer.clone(), not_found.clone(), Arc::clone(&issued));
        async move {
            if request.headers().contains_key("mcp-session-id") {
                return json(404, &[], not_found.into());
            }
            let id = match issued.fetch_add(1, Relaxed) {
                0 => "theirs".to_owned(),
                nth => format!("theirs-{nth}"),
            };
            json(200, &[&id], answer.into())
        }
    })
    .await;
    let first = ask(addr, "", INITIALIZE).await;
    assert_eq!((first.status, first.id()), (200, Some("theirs")));

    let silent = join_all((0..CLIENTS).map(|_| falls_silent(addr, LIMIT - 1, LIMIT))).await;
    // Everything has been read once the rest is too little for this.
    let longer = " ".repeat(1000);
    for attempt in 0.. {
        let reply = ask(addr, "", &longer).await;
        if reply.status == 503 {
            assert_eq!(reply.body, UNAVAILABLE);
            break;
        }
        assert_eq!(reply.status, 400);
        assert!(attempt < 1000, "the budget is never spent");
        sleep(Duration::from_millis(5)).await;
    }

    let reply = ask(addr, "", INITIALIZE).await;
    assert_eq!((reply.status, reply.is_whole), (200, true));
    assert_eq!(reply.body, result);
    assert_eq!(reply.id(), Some("theirs-1"));
    assert_eq!(count(&sessions).await, 2);

    let reply = ask(addr, LIVE, PING).await;
    assert_eq!((reply.status, reply.is_whole), (404, true));
    // The service's words, which could not be looked at, or the layer's.
    assert!(
        reply.body == gone || reply.body == support::answers::NOT_FOUND,
        "{reply:?}"
    );

    // When they hang up there is room again.
    drop(silent);
    for attempt in 0.. {
        if ask(addr, "", &longer).await.status == 400 {
            break;
        }
        assert!(attempt < 1000, "never given back");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The inner service's answer breaks off after 24 bytes: so does what the client gets, and there is no session.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    const STARTED: &str = r#"{"jsonrpc":"2.0","id":1,"#;
    let (addr, sessions) = server(layer(MemoryStore::new()), |request: Request| async {
        let is_live = request.headers().contains_key("mcp-session-id");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let broken = || {
            // A little later, so that the head and the start are on their way.
            let error = async {
                sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("reset"))
            };
            let pieces = stream::iter([Ok(STARTED)]);
            Body::from_stream(futures_util::StreamExt::chain(pieces, stream::once(error)))
        };
        match (is_live, body.starts_with(b" ")) {
            (false, false) => json(200, &["theirs"], broken()),
            (false, true) => json(200, &["theirs"], support::answers::RESULT.into()),
            (true, _) => json(404, &[], broken()),
        }
    })
    .await;
    let over_http2 = async |headers: &[(&'static str, &'static str)], body: &'static str| {
        let mut head = http::Request::post("http://mcp.test/mcp");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let h2 = Http2::connect(addr).await;
        let frames = stream::iter([bytes::Bytes::from(body)]);
        // A reset may overtake the head.
        h2.send(head.body(()).unwrap(), frames).await.ok()
    };
    let over_http1 = ask(addr, "", INITIALIZE).await;
    let over_http2_too = over_http2(&[], INITIALIZE).await;
    for reply in [over_http1].into_iter().chain(over_http2_too) {
        assert_eq!((reply.status, &*reply.body), (200, STARTED));
        assert!(!reply.is_whole, "completed by the layer: {reply:?}");
        assert_eq!(reply.id(), None);
        assert_eq!(count(&sessions).await, 0);
    }

    let whole = ask(addr, "", &format!(" {INITIALIZE}")).await;
    assert_eq!(whole.id(), Some("theirs"));
    let over_http1 = ask(addr, LIVE, PING).await;
    let over_http2_too = over_http2(&[("mcp-session-id", "theirs")], PING).await;
    for reply in [over_http1].into_iter().chain(over_http2_too) {
        assert_eq!((reply.status, &*reply.body), (404, STARTED));
        assert!(!reply.is_whole, "completed by the layer: {reply:?}");
        assert_eq!(count(&sessions).await, 1);
    }
}

/// Hanging up is seen by the server, and ends the call in the inner service.
#[tokio::test(flavor = "multi_thread")]
async fn where_sessions_are_optional_a_call_ends_when_its_client_hangs_up() {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let running = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&running);
    let layer = layer(MemoryStore::new()).with_optional_sessions();
    let (addr, _) = server(layer, move |request: Request| {
        counted.fetch_add(1, Relaxed);
        let running = Running(Arc::clone(&counted));
        async move {
            let _running = running;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if body == PING {
                std::future::pending::<()>().await;
            }
            json(200, &[], support::answers::RESULT.into())
        }
    })
    .await;
    let clients = join_all((0..200).map(|_| async move {
        let mut client = Http1::connect(addr).await;
        client.send(&post("", PING)).await.unwrap();
        client
    }))
    .await;
    eventually("all are running", || running.load(Relaxed) == 200).await;
    drop(clients);
    eventually("none is running", || running.load(Relaxed) == 0).await;
    assert_eq!(ask(addr, "", INITIALIZE).await.status, 200);
}
