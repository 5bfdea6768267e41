//! Whether the answer that creates a session was taken: one that nobody took leaves a session that nobody can use.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{
    Lifecycle,
    over::{Liveness, over_if_idle},
};
use crate::{
    session::{Session, Tracker, Wake},
    store::{EndReason, StoreError},
};

/// Has the keeper end a session if this body, of the answer that brings its id, is dropped before it can have been sent.
///
/// A server that finds its client gone drops the answer before it looks at the body. One that fails when it writes the
/// head drops the body after its first frame, unless that was all of it.
pub(super) fn watch_delivery(body: Body, session: &Session, tracker: &Arc<Tracker>) -> Body {
    if body.is_end_stream() {
        // A server does not look at such a body.
        return body;
    }
    Body::new(Delivery {
        body,
        looks: 0,
        undelivered: Some(Undelivered {
            session: session.clone(),
            tracker: Arc::clone(tracker),
        }),
    })
}

/// Ends a session of which nobody has the id, unless it was used all the same, here or on another node.
pub(super) async fn end_undelivered(
    lifecycle: &Lifecycle,
    session: &Session,
) -> Result<Liveness, StoreError> {
    let store = &lifecycle.store;
    let terms = lifecycle.settings.terms(session.owner(), Duration::ZERO);
    match store.load(session.id()).await? {
        // A touch would have left it more.
        Some(found) if found.age + found.idle_left <= terms.initial_idle + ROUNDING => {
            // It may have been used since then.
            let left = found.idle_left + ROUNDING;
            match over_if_idle(store, session.id(), left, EndReason::Undelivered).await? {
                true => Ok(Liveness::Over),
                false => Ok(Liveness::Unknown),
            }
        }
        Some(found) => Ok(Liveness::Live(found)),
        None => Ok(Liveness::Unknown),
    }
}

struct Delivery {
    body: Body,
    looks: u8,
    /// Until it is delivered.
    undelivered: Option<Undelivered>,
}

struct Undelivered {
    session: Session,
    tracker: Arc<Tracker>,
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // At the second look the head has been sent.
        if self.looks > 0 || matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.undelivered = None;
        }
        self.looks = 1;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(Undelivered { session, tracker }) = self.undelivered.take() {
            session.state().mark_undelivered();
            tracker.wake(Wake::Undelivered(session));
        }
    }
}

/// More than a store rounds times by.
const ROUNDING: Duration = Duration::from_millis(50);
