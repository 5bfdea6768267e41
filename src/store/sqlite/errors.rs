//! What SQLite's errors mean to the layer.

use sqlx::Error;

use crate::store::{StoreError, StoreErrorKind};

pub(super) fn failed(doing: &'static str) -> impl FnOnce(Error) -> StoreError {
    move |error| StoreError::new(kind(&error), doing).with_source(error)
}

fn kind(error: &Error) -> StoreErrorKind {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::WorkerCrashed => StoreErrorKind::Unavailable,
        Error::ColumnDecode { .. } | Error::Decode(_) => StoreErrorKind::Corrupt,
        Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<u32>().ok());
            kind_of_code(code.unwrap_or_default())
        }
        _ => StoreErrorKind::Failed,
    }
}

/// What a result code says (<https://sqlite.org/rescode.html>). Its lowest byte is the primary one.
fn kind_of_code(code: u32) -> StoreErrorKind {
    match code & 0xFF {
        // Busy, locked, out of memory, interrupted, I/O error, full, cannot open, locking protocol.
        5 | 6 | 7 | 9 | 10 | 13 | 14 | 15 => StoreErrorKind::Unavailable,
        // Corrupt, not a database.
        11 | 26 => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Failed,
    }
}
