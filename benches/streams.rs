//! Streams that end with their session: what a frame costs, and how long the end takes.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt as _;
use mcp_session_layer::{McpSessionLayer, MemoryStore};
use tokio::{runtime::Builder, sync::Notify, task::JoinSet};
use tower::{Layer as _, ServiceExt as _};

use crate::{
    each, median,
    request::Template,
    services::{Noop, Served, live_session},
};

/// Answers with a stream.
#[derive(Clone, Copy)]
pub struct Streaming(pub Frames);

/// The stream.
#[derive(Clone, Copy)]
pub struct Frames {
    /// How many frames are left; without a number it says nothing, for ever.
    pub left: Option<usize>,
    /// Whether each frame is to be waited for.
    pub waits: bool,
    waited: bool,
}

impl Frames {
    #[must_use]
    pub fn new(left: Option<usize>, waits: bool) -> Self {
        Self {
            left,
            waits,
            waited: false,
        }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.left else {
            return Poll::Pending;
        };
        if self.waits && !self.waited {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        let Some(less) = left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = Some(less);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(EVENT)))))
    }
}

impl tower::Service<Request<Body>> for Streaming {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut answer = Response::new(Body::new(self.0));
        let events = HeaderValue::from_static("text/event-stream");
        answer.headers_mut().insert(CONTENT_TYPE, events);
        ready(Ok(answer))
    }
}

pub fn main() {
    println!("what\tway\tns");
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        frames("a frame that is ready", false).await;
        frames("a frame that is waited for", true).await;
        ends().await;
    });
}

async fn frames(what: &str, waits: bool) {
    let store = MemoryStore::new();
    let session = live_session(&store, None).await;
    let ids = [session.id().expose().to_owned()];
    let inner = Streaming(Frames::new(Some(FRAMES), waits));
    let bare = Noop {
        inner,
        session: Some(session),
    };
    let layer = McpSessionLayer::new(store).layer(inner);
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        took[0].push(drain(bare.clone(), &ids).await);
        took[1].push(drain(layer.clone(), &ids).await);
    }
    for (way, took) in ["without the layer", "watched"].into_iter().zip(took) {
        println!("{what}\t{way}\t{:.1}", median(took));
    }
}

/// Reads one stream to its end.
async fn drain(service: impl Served, ids: &[String]) -> f64 {
    let mut body = open(service, ids).await;
    let begun = Instant::now();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        std::hint::black_box(frame.expect("a frame"));
        frames += 1;
    }
    assert_eq!(frames, FRAMES);
    each(begun.elapsed(), FRAMES)
}

/// Opens the stream with which a client listens.
pub async fn open(service: impl Served, ids: &[String]) -> Body {
    let mut request = Template::new("live", ids).request();
    *request.method_mut() = Method::GET;
    let Ok(answer) = service.oneshot(request).await;
    assert!(answer.status().is_success());
    answer.into_body()
}

/// Ends one session on which many listen, each in a task of its own; beside it as many tasks that are only woken.
async fn ends() {
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..5 {
        let store = MemoryStore::new();
        let session = live_session(&store, None).await;
        let ids = [session.id().expose().to_owned()];
        let layer = McpSessionLayer::new(store);
        let service = layer.layer(Streaming(Frames::new(None, false)));
        let mut tasks = JoinSet::new();
        let waiting = Arc::new(AtomicUsize::new(0));
        for _ in 0..STREAMS {
            let mut body = open(service.clone(), &ids).await;
            let waiting = Arc::clone(&waiting);
            tasks.spawn(async move {
                waiting.fetch_add(1, Relaxed);
                assert!(body.frame().await.is_none());
            });
        }
        all(&waiting).await;
        let begun = Instant::now();
        let sessions = layer.sessions();
        assert!(sessions.end(session.reference()).await.expect("an answer"));
        took[0].push(each(begun.elapsed(), STREAMS));
        while let Some(ended) = tasks.join_next().await {
            ended.expect("nobody panics");
        }
        took[1].push(each(begun.elapsed(), STREAMS));

        let end = Arc::new(Notify::new());
        waiting.store(0, Relaxed);
        for _ in 0..STREAMS {
            let (end, waiting) = (Arc::clone(&end), Arc::clone(&waiting));
            tasks.spawn(async move {
                waiting.fetch_add(1, Relaxed);
                end.notified().await;
            });
        }
        all(&waiting).await;
        let begun = Instant::now();
        end.notify_waiters();
        while let Some(ended) = tasks.join_next().await {
            ended.expect("nobody panics");
        }
        took[2].push(each(begun.elapsed(), STREAMS));
    }
    let what = format!("each of {STREAMS} streams of an ended session");
    let ways = [
        "the call that ends it",
        "until all have ended",
        "as many tasks, only woken",
    ];
    for (way, took) in ways.into_iter().zip(took) {
        println!("{what}\t{way}\t{:.0}", median(took));
    }
}

/// Waits until all tasks wait.
async fn all(waiting: &AtomicUsize) {
    while waiting.load(Relaxed) < STREAMS {
        tokio::task::yield_now().await;
    }
}

const EVENT: &[u8] = b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\n";
const FRAMES: usize = 100_000;
const ROUNDS: usize = 15;
const STREAMS: usize = 10_000;
