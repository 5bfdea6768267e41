//! Lists, counts and ends.

use std::{sync::Arc, time::Duration};

use sqlx::Error;

use super::{
    Inner, SqliteStore,
    errors::failed,
    finished,
    statements::{ANSWER, NOW, end},
};
use crate::{
    protocol::SessionRef,
    session::Scope,
    store::{
        BoxFuture, Directory, EndReason, SessionFilter, SessionInfo, StoreError,
        sql::{self, Stored},
    },
};

impl Directory for SqliteStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let count = format!(
                "select count(*) from \"mcp_sessions\" where {} and expires > {NOW}",
                condition(filter)
            );
            sqlx::query_scalar::<_, i64>(self.0.table.sql(&count))
                .bind(sql::scope(filter.scope()))
                .bind(sql::filtered_principal(filter))
                .fetch_one(self.0.readers.pool())
                .await
                .map(i64::unsigned_abs)
                .map_err(failed("count sessions"))
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let list = format!(
                "select reference, scope, principal, null as initialize_params, {ANSWER} from \"mcp_sessions\"
                where {} and expires > {NOW} and reference > ?3
                order by reference limit ?4",
                condition(filter)
            );
            let found = sqlx::query_as::<_, Stored>(self.0.table.sql(&list))
                .bind(sql::scope(filter.scope()))
                .bind(sql::filtered_principal(filter))
                .bind(after.map_or(&[][..], |after| after.as_bytes()))
                .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
                .fetch_all(self.0.readers.pool())
                .await;
            let found = found.map_err(failed("list sessions"))?;
            Ok(found.into_iter().map(Stored::info).collect())
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.end_one("end a session", *reference, Some(scope), None, reason))
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let (inner, filter) = (Arc::clone(&self.0), filter.clone());
        Box::pin(finished("end all sessions of an owner", async move {
            inner.end_all(&filter, reason).await
        }))
    }
}

impl Inner {
    /// Two steps: a mark that refuses the creations on their way, and the end of all that were recorded before.
    async fn end_all(&self, filter: &SessionFilter, reason: EndReason) -> Result<u64, Error> {
        let mark = format!(
            "insert into \"mcp_sessions_revoked\" (scope, everyone, principal, at)
            values (?1, ?2, ?3, {NOW})"
        );
        sqlx::query(self.table.sql(&mark))
            .bind(sql::scope(filter.scope()))
            .bind(matches!(filter, SessionFilter::Scope(_)))
            .bind(sql::filtered_principal(filter))
            .execute(&self.durable)
            .await?;
        let live = format!("{} and expires > {NOW}", condition(filter));
        let gone = sqlx::query(self.table.sql(&end(&live, "?3")))
            .bind(sql::scope(filter.scope()))
            .bind(sql::filtered_principal(filter))
            .bind(reason.as_str())
            .fetch_all(&self.durable)
            .await?;
        self.announce();
        // The clock shows milliseconds: a creation that begins after this must not look as old as the mark.
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(gone.len() as u64)
    }
}

/// The condition of a filter, with the scope as `?1` and the principal, or null, as `?2`.
fn condition(filter: &SessionFilter) -> &'static str {
    match filter {
        // The plus keeps SQLite from fetching the whole scope row by row through the index of owners.
        SessionFilter::Scope(_) => "+scope = ?1 and ?2 is null",
        SessionFilter::Owner(_) => "scope = ?1 and principal is ?2",
    }
}
