//! A session as a row: what the SQL stores share.

use std::{sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, ColumnIndex, Decode, Error, FromRow, Row, SqlSafeStr as _, SqlStr, Type,
    error::BoxDynError,
};

use super::{Found, SessionInfo};
use crate::{
    protocol::{ClientInfo, SessionId, SessionRef},
    session::{Issuer, Owner, Principal, Scope, Session, SessionRecord},
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

/// A row of the table of sessions. Its times are microseconds from now, by the database's clock.
pub(super) struct Stored {
    reference: SessionRef,
    record: SessionRecord,
    age: Duration,
    idle_left: Duration,
    life_left: Option<Duration>,
}

impl Stored {
    pub(super) fn found(self, id: &SessionId) -> Found {
        Found {
            session: Session::new(id.clone(), self.record),
            age: self.age,
            idle_left: self.idle_left,
            life_left: self.life_left,
        }
    }

    pub(super) fn info(self) -> SessionInfo {
        SessionInfo {
            reference: self.reference,
            record: self.record,
            age: self.age,
            idle_left: self.idle_left,
            life_left: self.life_left,
        }
    }
}

impl<'r, R: Row> FromRow<'r, R> for Stored
where
    &'static str: ColumnIndex<R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, Error> {
        let text = |column: &'static str| {
            let bytes: Option<Vec<u8>> = row.try_get(column)?;
            let text = bytes.map(String::from_utf8).transpose();
            text.map_err(|not_utf8| unreadable(column, not_utf8.into()))
        };
        let name = |column| text(column)?.ok_or_else(|| unreadable(column, "it is null".into()));
        let client = match text("client_name")? {
            Some(name_of_client) => Some(ClientInfo {
                name: name_of_client,
                version: name("client_version")?,
            }),
            None => None,
        };
        let issuer = match row.try_get("by_layer")? {
            true => Issuer::Layer,
            false => Issuer::Inner,
        };
        let life_left = row.try_get::<Option<i64>, _>("life_left")?.map(duration);
        let idle_left = duration(row.try_get("idle_left")?);
        Ok(Self {
            reference: reference(&row.try_get::<Vec<u8>, _>("reference")?)?,
            record: SessionRecord {
                owner: Owner {
                    scope: Scope::new(name("scope")?),
                    principal: text("principal")?.map(Principal::new),
                },
                issuer,
                client,
                protocol_version: text("protocol_version")?,
                initialize_params: row
                    .try_get::<Option<Vec<u8>>, _>("initialize_params")?
                    .map(Into::into),
            },
            age: duration(row.try_get("age")?),
            idle_left: life_left.map_or(idle_left, |life_left| idle_left.min(life_left)),
            life_left,
        })
    }
}

/// The reference that a row is keyed by.
pub(super) fn reference(bytes: &[u8]) -> Result<SessionRef, Error> {
    let bytes = bytes
        .try_into()
        .map_err(|_| unreadable("reference", "it is not 32 bytes long".into()))?;
    Ok(SessionRef::from_bytes(bytes))
}

/// What a principal's column holds. Names are kept as bytes, because text in PostgreSQL cannot hold a NUL and in
/// SQLite holds one badly.
pub(super) fn principal(owner: &Owner) -> Option<&[u8]> {
    owner
        .principal
        .as_ref()
        .map(|name| name.as_str().as_bytes())
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

fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.try_into().unwrap_or_default())
}

fn unreadable(column: &str, source: BoxDynError) -> Error {
    Error::ColumnDecode {
        index: column.to_owned(),
        source,
    }
}

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
