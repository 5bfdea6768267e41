//! Changing a session's values.

use std::sync::Arc;

use super::{SqliteStore, finished, statements};
use crate::{
    protocol::SessionId,
    session::Owner,
    store::{
        StoreError,
        replace::{DOING, Replace},
        sql,
    },
};

impl Replace for SqliteStore {
    async fn replace(
        &self,
        id: &SessionId,
        owner: &Owner,
        before: Option<Vec<u8>>,
        after: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let (inner, owner, reference) = (Arc::clone(&self.0), owner.clone(), id.reference());
        finished(DOING, async move {
            let replaced = sqlx::query(inner.table.sql(&statements::replace()))
                .bind(&reference.as_bytes()[..])
                .bind(sql::scope(&owner.scope))
                .bind(sql::principal(&owner))
                .bind(after)
                .bind(before)
                .fetch_all(&inner.durable)
                .await?;
            inner.announce();
            Ok(!replaced.is_empty())
        })
        .await
    }
}
