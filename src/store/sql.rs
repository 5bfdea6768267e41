//! What the SQL stores share: names of tables, sessions as rows, connections for a call.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Database, Pool, SqlSafeStr as _, SqlStr};

use super::{Expiry, SessionFilter, StoreError, Terms};
use crate::{
    protocol::SessionId,
    session::{Owner, Scope},
};

mod connections;
mod row;

#[cfg(feature = "postgres")]
pub(super) use self::connections::Lent;
pub(super) use self::{
    connections::Connections,
    row::{Stored, reference},
};

/// The name of a table, fit to stand in a statement.
#[derive(Debug, Clone)]
pub(super) struct Table(String);

impl Table {
    /// Checks a name. The names of further tables and indexes begin with it, hence the bound: 63 bytes are the
    /// most that PostgreSQL tells apart.
    pub(super) fn new(name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        assert!(
            (1..=40).contains(&name.len()) && name.bytes().all(plain),
            "a table name is 1 to 40 letters, digits and underscores, not {name:?}"
        );
        Self(name.to_owned())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// A statement that was written for the table `"mcp_sessions"`, for this one. The quotes there keep a name's
    /// case and let it be a reserved word.
    pub(super) fn sql(&self, statement: &str) -> SqlStr {
        let statement = statement.replace("mcp_sessions", &self.0);
        AssertSqlSafe(Arc::<str>::from(statement)).into_sql_str()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new("mcp_sessions")
    }
}

/// What a principal's column holds. Names are kept as bytes, because text in PostgreSQL cannot hold a NUL and in
/// SQLite holds one badly.
pub(super) fn principal(owner: &Owner) -> Option<&[u8]> {
    owner
        .principal
        .as_ref()
        .map(|name| name.as_str().as_bytes())
}

/// The same of a filter: null unless it is of a principal.
pub(super) fn filtered_principal(filter: &SessionFilter) -> Option<&[u8]> {
    match filter {
        SessionFilter::Scope(_) => None,
        SessionFilter::Owner(owner) => principal(owner),
    }
}

pub(super) fn scope(scope: &Scope) -> &[u8] {
    scope.as_str().as_bytes()
}

/// Microseconds, rounded down: nobody gets more time than was said.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.min(FOR_EVER).as_micros()).expect("it was bounded")
}

/// How much more than the idle time a touch grants, and so for how long after it others need not be written.
pub(super) fn grace(idle: Duration) -> Duration {
    idle / 16
}

/// How long a new session lives without a touch.
pub(super) fn first_idle(terms: &Terms) -> Duration {
    let idle = terms.initial_idle.min(terms.idle);
    terms.life.map_or(idle, |life| idle.min(life))
}

/// What an attempt to expire a session left of it.
pub(super) fn expiry(left: Option<Stored>, id: &SessionId) -> Expiry {
    match left {
        Some(stored) => Expiry::Left(stored.found(id)),
        None => Expiry::Over,
    }
}

/// Sweeps now and then until the pool is closed, and goes on after errors.
pub(super) async fn keep_swept<D, F>(pool: Pool<D>, every: Duration, sweep: impl Fn() -> F)
where
    D: Database,
    F: Future<Output = Result<u64, StoreError>>,
{
    while !pool.is_closed() {
        match sweep().await {
            // There may be more.
            Ok(swept) if swept >= u64::from(SWEPT_AT_ONCE) => continue,
            Ok(_) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "expired sessions will be swept later");
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// How many rows one sweep deletes at most.
pub(super) const SWEPT_AT_ONCE: u32 = 1000;

/// A hundred years. Longer times would leave the range in which a database calculates exactly.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_quoted_and_its_kin_are_renamed() {
        let sql = Table::new("Order").sql(r#"from "mcp_sessions", "mcp_sessions_revoked""#);
        assert_eq!(sql.as_str(), r#"from "Order", "Order_revoked""#);
    }

    #[test]
    fn a_name_that_could_break_out_is_refused() {
        let long = "x".repeat(41);
        for name in ["", "a\"b", "a'b", "a b", "a.b", "a\0b", "\u{E4}", &long] {
            let made = std::panic::catch_unwind(|| Table::new(name));
            assert!(made.is_err(), "{name:?}");
        }
    }
}
