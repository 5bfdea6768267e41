//! Lists, counts and ends.

use sqlx::{Connection as _, Row as _};

use super::{
    PostgresStore,
    statements::{ANSWER, check_primary, end, from_primary, stored},
};
use crate::{
    protocol::SessionRef,
    session::Scope,
    store::{
        BoxFuture, Directory, EndReason, SessionFilter, SessionInfo, StoreError,
        sql::{self, Stored},
    },
};

impl Directory for PostgresStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let count = self.0.table.sql(&from_primary(&format!(
                "select count(*) from \"mcp_sessions\" where {} and expires > now()",
                condition(filter)
            )));
            let mut held = self.hold("count sessions").await?;
            let row = sqlx::query(count)
                .bind(sql::scope(filter.scope()))
                .bind(sql::filtered_principal(filter))
                .fetch_one(&mut *held)
                .await;
            let count = row.and_then(|row| {
                check_primary(&row)?;
                row.try_get::<i64, _>("count")
            });
            Ok(held.done(count)?.unsigned_abs())
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let list = self.0.table.sql(&from_primary(&format!(
                "select reference, scope, principal, null::bytea as initialize_params, {ANSWER} from \"mcp_sessions\"
                where {} and expires > clock_timestamp() and reference > $3
                order by reference limit $4",
                condition(filter)
            )));
            let mut held = self.hold("list sessions").await?;
            let rows = sqlx::query(list)
                .bind(sql::scope(filter.scope()))
                .bind(sql::filtered_principal(filter))
                .bind(after.map_or(&[][..], |after| after.as_bytes()))
                .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
                .fetch_all(&mut *held)
                .await;
            let found = held.done(rows.and_then(stored))?;
            Ok(found.into_iter().map(Stored::info).collect())
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let end = self
                .0
                .table
                .sql(&end("scope = $1 and reference = $2", "$3"));
            let mut held = self.hold("end a session").await?;
            let ended = sqlx::query_scalar::<_, i64>(end)
                .bind(sql::scope(scope))
                .bind(&reference.as_bytes()[..])
                .bind(reason.as_str())
                .fetch_one(&mut *held)
                .await;
            Ok(held.done(ended)? > 0)
        })
    }

    /// Two steps: a mark that refuses the creations on their way, and the end of all that were recorded before.
    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let table = &self.0.table;
            let mut held = self.hold("end all sessions of an owner").await?;
            let ended = async {
                let mut transaction = held.begin().await?;
                // Waits for the creations that have looked for marks already, and keeps out those that have not.
                sqlx::raw_sql(table.sql(
                    "lock table \"mcp_sessions_revoked\" in share row exclusive mode",
                ))
                .execute(&mut *transaction)
                .await?;
                sqlx::query(table.sql(MARK))
                    .bind(sql::scope(filter.scope()))
                    .bind(matches!(filter, SessionFilter::Scope(_)))
                    .bind(sql::filtered_principal(filter))
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;

                // Locked in one order, so that two of these do not wait for each other.
                let all = format!(
                    "reference in (
                        select reference from \"mcp_sessions\" where {} order by reference for update
                    )",
                    condition(filter)
                );
                sqlx::query_scalar::<_, i64>(table.sql(&end(&all, "$3")))
                    .bind(sql::scope(filter.scope()))
                    .bind(sql::filtered_principal(filter))
                    .bind(reason.as_str())
                    .fetch_one(&mut *held)
                    .await
            }
            .await;
            Ok(held.done(ended)?.unsigned_abs())
        })
    }
}

/// The condition of a filter, with the scope as `$1` and the principal, or null, as `$2`.
fn condition(filter: &SessionFilter) -> &'static str {
    match filter {
        SessionFilter::Scope(_) => "scope = $1 and $2::bytea is null",
        // "Is not distinct from" would use no index.
        SessionFilter::Owner(owner) if owner.principal.is_some() => "scope = $1 and principal = $2",
        SessionFilter::Owner(_) => "scope = $1 and principal is null and $2::bytea is null",
    }
}

const MARK: &str = "
    insert into \"mcp_sessions_revoked\" (scope, everyone, principal, at)
    values ($1, $2, $3, clock_timestamp())";
