//! A stream that ends with its session.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{InFlight, Session, StreamKind};
use crate::{
    metrics::WatchedStream,
    protocol::RejectionKind,
    sync::{
        Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

/// Makes a body end with the session that it is an answer on.
///
/// # Errors
///
/// When that has ended already, or the process shuts down: there is no stream then.
pub(crate) fn watch(
    body: Body,
    in_flight: InFlight,
    kind: StreamKind,
) -> Result<Body, RejectionKind> {
    let stream = Arc::new(Stream {
        place: AtomicUsize::new(0),
        kind,
        has_ended: AtomicBool::new(false),
        state: Mutex::new(State {
            body: Some(body),
            _watched: Some(WatchedStream::new()),
            ..State::default()
        }),
    });
    enlist(&stream, &in_flight)?;
    let session = in_flight.session().clone();
    stream.hold(in_flight);
    Ok(Body::new(Watched { stream, session }))
}

/// Puts a stream on its session's list, so that it ends with the session, with its owner's tenure and with the process.
fn enlist(stream: &Arc<Stream>, in_flight: &InFlight) -> Result<(), RejectionKind> {
    let session = in_flight.session();
    session.add_stream(stream);
    // Looked at after the stream is in the list: whoever ends it from here on finds it there.
    let may = in_flight.may_stream(stream.kind);
    if may.is_err() {
        session.remove_stream(stream);
    }
    may
}

impl Session {
    fn add_stream(&self, stream: &Arc<Stream>) {
        let mut attached = self.0.attached.lock();
        let streams = &mut attached.more().streams;
        stream.place.store(streams.len(), Relaxed);
        streams.push(Arc::clone(stream));
    }

    /// Takes a stream off the list, if it is there: it is over.
    fn remove_stream(&self, stream: &Arc<Stream>) {
        let mut attached = self.0.attached.lock();
        let Some(more) = &mut attached.more else {
            return;
        };
        let place = stream.place.load(Relaxed);
        let is_there = more
            .streams
            .get(place)
            .is_some_and(|other| Arc::ptr_eq(other, stream));
        let removed = is_there.then(|| more.streams.swap_remove(place));
        if let Some(moved) = more.streams.get(place) {
            moved.place.store(place, Relaxed);
        }
        drop(attached);
        drop(removed);
    }
}

/// The part of a watched stream that whoever ends the session can reach.
pub(crate) struct Stream {
    /// In its session's list, under the list's lock.
    pub(super) place: AtomicUsize,
    kind: StreamKind,
    has_ended: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The inner body, until the end of either.
    body: Option<Body>,
    /// Keeps the session in use for as long as the stream is open.
    in_flight: Option<InFlight>,
    waker: Option<Waker>,
    _watched: Option<WatchedStream>,
}

impl Stream {
    pub(crate) fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Ends the stream now: nothing more is handed out, and the inner body is dropped although nobody polls.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, SeqCst);
        self.finish();
    }

    /// Takes everything out of a stream that has ended, to be dropped outside the lock: a body's `drop` is the
    /// application's code. Whoever holds the lock just now, and that may be this very thread while it polls, does the same
    /// when it lets go.
    fn finish(&self) {
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        let ended = std::mem::take(&mut *state);
        drop(state);
        if let Some(waker) = &ended.waker {
            waker.wake_by_ref();
        }
    }

    fn with_state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let seen = look(&mut self.state.lock());
        if self.has_ended.load(SeqCst) {
            self.finish();
        }
        seen
    }

    fn hold(&self, mut in_flight: InFlight) {
        // However soon it ends: nobody looks at the clock when it begins.
        in_flight.waited();
        self.with_state(|state| state.in_flight = Some(in_flight));
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = self.with_state(|state| {
            let Some(body) = state.body.as_mut().filter(|_| !self.has_ended.load(SeqCst)) else {
                return Poll::Ready(None);
            };
            let polled = Pin::new(body).poll_frame(cx);
            if polled.is_pending() {
                match &mut state.waker {
                    Some(known) => known.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
            }
            polled
        });
        // It may have been ended meanwhile, by its own body too.
        if self.has_ended.load(SeqCst) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(None) = polled {
            self.end();
        }
        polled
    }
}

struct Watched {
    stream: Arc<Stream>,
    session: Session,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.stream.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.has_ended.load(SeqCst)
            || self
                .stream
                .with_state(|state| state.body.as_ref().is_none_or(HttpBody::is_end_stream))
    }

    /// Unknown, always: a body that may end early must not promise a length, or the server cuts the connection.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.session.remove_stream(&self.stream);
        if !self.stream.has_ended.load(SeqCst) {
            self.stream.end();
        }
    }
}
