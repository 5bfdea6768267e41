//! The feed of a store whose ends are all known to this process.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::broadcast::{
    Receiver, Sender,
    error::RecvError::{self, Closed, Lagged},
};

use crate::{
    id::SessionRef,
    store::{BoxFuture, EndReason, Feed, FeedEvent},
};

/// Where ends are announced.
pub(super) struct Ends(Sender<FeedEvent>);

impl Ends {
    pub(super) fn announce(&self, reference: SessionRef, reason: EndReason) {
        self.send(FeedEvent::Ended { reference, reason });
    }

    pub(super) fn send(&self, event: FeedEvent) {
        // An error says that nobody listens.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> Feed {
        Box::pin(Subscription(next(self.0.subscribe())))
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self(Sender::new(BACKLOG))
    }
}

/// A receiver as a stream.
struct Subscription(BoxFuture<'static, (Result<FeedEvent, RecvError>, Receiver<FeedEvent>)>);

impl Stream for Subscription {
    type Item = FeedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        let (heard, receiver) = ready!(self.0.as_mut().poll(cx));
        self.0 = next(receiver);
        Poll::Ready(match heard {
            Ok(event) => Some(event),
            Err(Lagged(_)) => Some(FeedEvent::Gap),
            Err(Closed) => None,
        })
    }
}

fn next(
    mut receiver: Receiver<FeedEvent>,
) -> BoxFuture<'static, (Result<FeedEvent, RecvError>, Receiver<FeedEvent>)> {
    Box::pin(async move { (receiver.recv().await, receiver) })
}

/// How many ends a subscriber may be behind before it hears of a gap.
const BACKLOG: usize = 1024;
