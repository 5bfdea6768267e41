//! A stream that ends with its session.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use axum::body::{Body, Bytes};
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use crate::live::Visit;

/// Makes a body end with the session that the visit is on. `None` if that has ended already: no stream then.
pub(crate) fn watch(body: Body, visit: Visit, kind: StreamKind) -> Option<Body> {
    let stream = Arc::new(Stream {
        kind,
        ended: AtomicBool::new(false),
        state: Mutex::new(State {
            body: Some(body),
            waker: None,
        }),
    });
    let key = visit.watch(&stream)?;
    Some(Body::new(Watched { stream, visit, key }))
}

/// What opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// A GET: it stays open until somebody ends it.
    Standing,
    /// Any other request: it ends with its answer.
    Answer,
}

impl StreamKind {
    /// Of the stream that a request with this method opens.
    pub(crate) fn of(method: &Method) -> Self {
        if method == Method::GET {
            Self::Standing
        } else {
            Self::Answer
        }
    }
}

/// The part of a watched stream that whoever ends the session can reach.
pub(crate) struct Stream {
    pub(crate) kind: StreamKind,
    ended: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// The inner body, until the end of either.
    body: Option<Body>,
    waker: Option<Waker>,
}

impl Stream {
    /// Ends the stream now: nothing more is handed out, and the inner body is dropped although nobody polls.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.settle();
    }

    /// Drops the body of a stream that has ended. If it is being polled at this moment, by whom it may be that we
    /// are called, the poller does it.
    fn settle(&self) {
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        let body = state.body.take();
        let waker = state.waker.take();
        drop(state);
        drop(body);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = self.state.lock();
        let polled = match &mut state.body {
            Some(body) if !self.has_ended() => Pin::new(body).poll_frame(cx),
            _ => Poll::Ready(None),
        };
        match &polled {
            Poll::Pending
                if !state
                    .waker
                    .as_ref()
                    .is_some_and(|w| w.will_wake(cx.waker())) =>
            {
                state.waker = Some(cx.waker().clone());
            }
            Poll::Ready(None) => state.body = None,
            _ => {}
        }
        drop(state);
        // Whoever ended the stream while the lock was ours left the rest to us.
        if self.has_ended() {
            self.settle();
            return Poll::Ready(None);
        }
        polled
    }
}

struct Watched {
    stream: Arc<Stream>,
    visit: Visit,
    key: u64,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(ready!(self.stream.poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.stream.state.lock();
        state.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// Unknown, always: a body that may end early must not promise a length, or the server cuts the connection.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.visit.unwatch(self.key);
    }
}
