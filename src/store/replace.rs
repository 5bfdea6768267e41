//! Changes of a session's values in stores that keep them as one piece: read, changed here, and written if nobody else has
//! written meanwhile.

use std::future::Future;

use super::{Expiry, Found, SessionStore, StoreError, StoreErrorKind};
use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session, SessionRecord},
};

/// A store that can write values in place of those that it was asked for.
pub(super) trait Replace: SessionStore {
    /// Writes a live session's values and announces it, if it is this owner's and has those from before.
    fn replace(
        &self,
        id: &SessionId,
        owner: &Owner,
        before: Option<Vec<u8>>,
        after: Vec<u8>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// [`SessionStore::change`].
pub(super) async fn change(
    store: &impl Replace,
    id: &SessionId,
    owner: &Owner,
    change: &Change,
) -> Result<Option<Found>, StoreError> {
    loop {
        // Not a read, which a touch may have overtaken.
        let Expiry::Left(found) = store.expire(id).await? else {
            return Ok(None);
        };
        if found.session.owner() != owner {
            return Ok(None);
        }
        let before = found.session.values();
        let changed = before
            .changed(change)
            .map_err(|error| StoreError::new(StoreErrorKind::TooLarge, DOING).with_source(error))?;
        let Some((values, after)) = changed.and_then(|values| {
            let after = values.to_bytes()?;
            Some((values, after))
        }) else {
            return Ok(Some(found));
        };
        if store.replace(id, owner, before.to_bytes(), after).await? {
            let record = SessionRecord {
                values,
                ..found.session.record()
            };
            let session = Session::new(id.clone(), record);
            return Ok(Some(Found { session, ..found }));
        }
    }
}

pub(super) const DOING: &str = "change a session's values";
