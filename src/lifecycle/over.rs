//! Whether a session is over. What is done about an end (streams, event, inner service, tombstone) cannot be undone, so it
//! rests on an atomic answer of the store, never on a read that a touch may have overtaken.

use std::time::Duration;

use tokio::time::sleep;

use super::bounded_store::BoundedStore;
use crate::{
    protocol::SessionId,
    session::{
        Session,
        times::{self, ticks},
    },
    store::{EndReason, Expiry, Found, StoreError},
};

/// What is certain of a session.
pub(super) enum Liveness {
    Live(Found),
    Over,
    /// Nothing is certain, for now.
    Unknown,
}

impl From<Expiry> for Liveness {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Left(found) => Self::Live(found),
            Expiry::Over => Self::Over,
        }
    }
}

/// Asks the store whether a session is over, which it is then for good.
///
/// A store that cannot say so is read. What it does not show any more is deleted, which decides as well, but not before
/// its time has been up for so long that no touch of its last moment can still be under way.
pub(super) async fn liveness(
    store: &BoundedStore,
    session: &Session,
    reason: EndReason,
) -> Result<Liveness, StoreError> {
    let id = session.id();
    if let Some(expiry) = store.expire(id).await? {
        return Ok(expiry.into());
    }
    if let Some(found) = store.load(id).await? {
        return Ok(Liveness::Live(found));
    }
    let certain = session.times().until().saturating_add(ticks(LONGEST_TOUCH));
    if times::now() < certain {
        return Ok(Liveness::Unknown);
    }
    store.delete(id, reason).await?;
    Ok(Liveness::Over)
}

/// Ends a session of which at most so much idle time is left, and says whether it is over by that. One that was touched since
/// it was read lives on, unless the store cannot look and delete in one step.
pub(super) async fn over_if_idle(
    store: &BoundedStore,
    id: &SessionId,
    left: Duration,
    reason: EndReason,
) -> Result<bool, StoreError> {
    match store.delete_idle(id, left, reason).await? {
        Some(ended) => Ok(ended),
        None => store.delete(id, reason).await,
    }
}

/// Whether no session of this id is live, however long it takes to say so. For the background.
pub(super) async fn is_over(store: &BoundedStore, id: &SessionId) -> bool {
    match store.expire_until_answered(id).await {
        Some(expiry) => matches!(expiry, Expiry::Over),
        // Two reads, so far apart that what the first one may have missed shows in the second.
        None => {
            store.load_until_answered(id).await.is_none() && {
                sleep(LONGEST_TOUCH).await;
                store.load_until_answered(id).await.is_none()
            }
        }
    }
}

/// The longest time limit for a store call is a minute.
pub(super) const LONGEST_TOUCH: Duration = Duration::from_secs(90);
