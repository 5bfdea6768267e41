//! Ends of sessions, heard from wherever they were ended.

use std::pin::Pin;

use futures_core::Stream;

use super::EndReason;
use crate::id::SessionRef;

/// A subscription to the explicit ends of sessions. It never ends by itself while its store lives: when the
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
    /// Something may have been missed: ask again for every session you hold open.
    Gap,
}
