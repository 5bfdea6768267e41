//! What happens to sessions, for whoever subscribes.

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{metrics, protocol::SessionRef, session::Owner, store::EndReason};

/// A subscription to the creation and the end of sessions.
#[derive(Debug)]
pub struct SessionEvents(broadcast::Receiver<SessionEvent>);

impl SessionEvents {
    /// Waits for the next event. `None` when the layer is gone.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(SessionEvent::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Something that happened to a session of this layer. It names the session by its reference, never by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was created on this node.
    Created {
        /// Which.
        reference: SessionRef,
        /// Whose it is.
        owner: Owner,
    },
    /// A session that this node has served or ended is no more.
    Ended {
        /// Which.
        reference: SessionRef,
        /// Why.
        reason: EndReason,
    },
    /// The subscriber was too slow for this many events.
    Missed(u64),
}

/// Where events are announced.
pub(crate) struct Events(broadcast::Sender<SessionEvent>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    pub(crate) fn subscribe(&self) -> SessionEvents {
        SessionEvents(self.0.subscribe())
    }

    pub(crate) fn announce(&self, event: SessionEvent) {
        if let SessionEvent::Created { .. } = event {
            metrics::session_created();
        }
        // An error says that nobody listens.
        let _ = self.0.send(event);
    }
}

/// How many events a subscriber may be behind before it misses some.
const BACKLOG: usize = 1024;
