//! Ends of sessions, heard from wherever they were ended.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{BoxFuture, EndReason};
use crate::protocol::SessionRef;

/// A subscription to the explicit ends of sessions, and to changes of their owners and values. It never ends by itself while its store lives: when the
/// connection behind it is lost it subscribes again and says [`FeedEvent::Gap`].
///
/// Expiry is not announced: whoever serves a session asks when its time is up.
pub type Feed = Pin<Box<dyn Stream<Item = FeedEvent> + Send>>;

/// What is heard on a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedEvent {
    /// A session was ended. Its own node hears this too.
    Ended {
        /// Which.
        reference: SessionRef,
        /// Why.
        reason: EndReason,
    },
    /// A session's values were changed, or it was claimed. Ask for it.
    Changed {
        /// Which.
        reference: SessionRef,
    },
    /// Something may have been missed: ask again for every session you hold open.
    Gap,
}

/// What is heard on this channel. `keep` is dropped with the subscription.
pub(super) fn heard<K>(receiver: Receiver<FeedEvent>, keep: K) -> Feed
where
    K: Send + Unpin + 'static,
{
    Box::pin(Heard {
        next: next(receiver),
        _keep: keep,
    })
}

struct Heard<K> {
    next: BoxFuture<'static, (Option<FeedEvent>, Receiver<FeedEvent>)>,
    _keep: K,
}

impl<K: Unpin> Stream for Heard<K> {
    type Item = FeedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        let (event, receiver) = ready!(self.next.as_mut().poll(cx));
        self.next = next(receiver);
        Poll::Ready(event)
    }
}

fn next(
    mut receiver: Receiver<FeedEvent>,
) -> BoxFuture<'static, (Option<FeedEvent>, Receiver<FeedEvent>)> {
    Box::pin(async move {
        let event = match receiver.recv().await {
            Ok(event) => Some(event),
            // Too slow: what was dropped for that can only be asked for.
            Err(RecvError::Lagged(_)) => Some(FeedEvent::Gap),
            Err(RecvError::Closed) => None,
        };
        (event, receiver)
    })
}
