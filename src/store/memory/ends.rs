//! The feed of a store whose ends are all known to this process.

use tokio::sync::broadcast::Sender;

use crate::{
    protocol::SessionRef,
    store::{EndReason, Feed, FeedEvent, feed::heard},
};

/// Where ends are announced.
pub(super) struct Ends(Sender<FeedEvent>);

impl Ends {
    pub(super) fn announce(&self, reference: SessionRef, reason: EndReason) {
        self.send(FeedEvent::Ended { reference, reason });
    }

    pub(super) fn send(&self, event: FeedEvent) {
        // An error says that there is no subscriber.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> Feed {
        heard(self.0.subscribe(), ())
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self(Sender::new(BACKLOG))
    }
}

/// How many ends a subscriber may be behind before it hears of a gap.
const BACKLOG: usize = 1024;
