//! A stream that ends with its session.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll, Waker},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::{InFlight, Session, StreamKind};
use crate::protocol::RejectionKind;

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
        state: Mutex::new(State {
            body: Some(body),
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

/// The part of a watched stream that whoever ends the session can reach.
pub(crate) struct Stream {
    /// In its session's list, under the list's lock.
    pub(super) place: AtomicUsize,
    kind: StreamKind,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    /// The inner body, until the end of either; not here while it is being polled.
    body: Option<Body>,
    /// Keeps the session in use for as long as the stream is open.
    in_flight: Option<InFlight>,
    waker: Option<Waker>,
}

impl Stream {
    pub(crate) fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Ends the stream now: nothing more is handed out, and the inner body is dropped although nobody polls.
    pub(crate) fn end(&self) {
        let State { waker, .. } = self.close();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes everything out, to be dropped outside the lock: a body's `drop` is the application's code.
    fn close(&self) -> State {
        let ended = State {
            has_ended: true,
            ..State::default()
        };
        std::mem::replace(&mut *self.state.lock(), ended)
    }

    fn hold(&self, mut in_flight: InFlight) {
        // However soon it ends: nobody looks at the clock when it begins.
        in_flight.waited();
        let mut state = self.state.lock();
        if !state.has_ended {
            state.in_flight = Some(in_flight);
        }
    }

    /// Polls the body without the lock: it may end its own session meanwhile.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(mut body) = self.take_body(cx.waker()) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut body).poll_frame(cx);
        if let Poll::Ready(None) = polled {
            drop(self.close());
            return polled;
        }
        match self.put_back(body) {
            Ok(()) => polled,
            // It was ended meanwhile, and its body is dropped here.
            Err(_ended) => Poll::Ready(None),
        }
    }

    fn take_body(&self, waker: &Waker) -> Option<Body> {
        let mut state = self.state.lock();
        let body = state.body.take()?;
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Some(body)
    }

    fn put_back(&self, body: Body) -> Result<(), Body> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(body);
        }
        state.body = Some(body);
        Ok(())
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
        self.session.remove_stream(&self.stream);
        drop(self.stream.close());
    }
}
