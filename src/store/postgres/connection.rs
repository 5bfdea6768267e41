//! A connection for the time of one call.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Connection as _, Error, PgConnection, Postgres, pool::PoolConnection};
use tokio::{runtime::Handle, time::timeout};

use crate::store::{
    StoreError, StoreErrorKind,
    sql::{Connections, Lent},
};

/// A connection that knows whether its call came to an end.
///
/// `sqlx` returns a connection to the pool once the server has answered what was sent on it. A server that hangs, or is
/// no longer reached, never does, and the place in the pool would be lost until TCP gives up. So a connection whose call
/// was dropped has a moment to settle, and is else given up.
pub(super) struct Held<'a> {
    connections: &'a Connections<Postgres>,
    connection: Option<Lent<Postgres>>,
    doing: &'static str,
}

impl<'a> Held<'a> {
    pub(super) async fn acquire(
        connections: &'a Connections<Postgres>,
        doing: &'static str,
    ) -> Result<Self, StoreError> {
        match connections.acquire().await {
            Ok(connection) => Ok(Self {
                connections,
                connection: Some(connection),
                doing,
            }),
            Err(error) => Err(failed(doing, error)),
        }
    }

    /// Hands the connection on, unless the answer shows that it is of no use.
    pub(super) fn done<T>(mut self, answer: Result<T, Error>) -> Result<T, StoreError> {
        let connection = self.connection.take().expect(UNTIL_DONE);
        match answer {
            Ok(answer) => {
                self.connections.hand_on(connection);
                Ok(answer)
            }
            Err(error) => {
                if is_broken(&error) {
                    give_up(connection.into_inner());
                }
                Err(failed(self.doing, error))
            }
        }
    }
}

impl Deref for Held<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect(UNTIL_DONE)
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect(UNTIL_DONE)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if !matches!(timeout(SETTLE, connection.ping()).await, Ok(Ok(()))) {
                        give_up(connection.into_inner());
                    }
                });
            }
            Err(_) => give_up(connection.into_inner()),
        }
    }
}

/// Closes a connection without a word to the server, and frees its place in the pool at once.
fn give_up(connection: PoolConnection<Postgres>) {
    drop(connection.detach());
}

fn failed(doing: &'static str, error: Error) -> StoreError {
    StoreError::new(kind(&error), doing).with_source(error)
}

fn kind(error: &Error) -> StoreErrorKind {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::Protocol(_) | Error::WorkerCrashed => {
            StoreErrorKind::Unavailable
        }
        Error::ColumnDecode { .. } | Error::Decode(_) => StoreErrorKind::Corrupt,
        Error::Database(error) => kind_of_state(&error.code().unwrap_or_default()),
        _ => StoreErrorKind::Failed,
    }
}

/// What the server's SQLSTATE says (PostgreSQL, appendix A).
fn kind_of_state(state: &str) -> StoreErrorKind {
    match state {
        // A server that was demoted, or a standby. A table that is gone is a mistake, a database that is shutting
        // down is not.
        READ_ONLY | "55P03" | "25P03" => StoreErrorKind::Unavailable,
        "XX001" | "XX002" => StoreErrorKind::Corrupt,
        _ => match state.get(..2) {
            // Connection, rolled back for another, out of resources, intervention of an operator, system.
            Some("08" | "40" | "53" | "57" | "58") => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Failed,
        },
    }
}

/// Whether the next call had better use another connection.
fn is_broken(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Protocol(_) => true,
        Error::Database(error) => error.code().as_deref() == Some(READ_ONLY),
        _ => false,
    }
}

/// `read_only_sql_transaction`
const READ_ONLY: &str = "25006";

const UNTIL_DONE: &str = "a connection is held until its call is done";

/// How long a connection whose call was dropped has to finish.
const SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_what_can_be_done() {
        for (state, expected) in [
            ("08006", StoreErrorKind::Unavailable), // connection failure
            ("25006", StoreErrorKind::Unavailable), // read only
            ("40001", StoreErrorKind::Unavailable), // serialization failure
            ("40P01", StoreErrorKind::Unavailable), // deadlock
            ("53100", StoreErrorKind::Unavailable), // disk full
            ("53300", StoreErrorKind::Unavailable), // too many connections
            ("55P03", StoreErrorKind::Unavailable), // lock timeout
            ("57014", StoreErrorKind::Unavailable), // statement timeout
            ("57P01", StoreErrorKind::Unavailable), // shutting down
            ("57P03", StoreErrorKind::Unavailable), // starting up
            ("XX001", StoreErrorKind::Corrupt),     // damaged page
            ("28P01", StoreErrorKind::Failed),      // wrong password
            ("42P01", StoreErrorKind::Failed),      // no such table
            ("42501", StoreErrorKind::Failed),      // not allowed
            ("", StoreErrorKind::Failed),
        ] {
            assert_eq!(kind_of_state(state), expected, "{state}");
        }
    }
}
