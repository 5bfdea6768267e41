//! A session as a row.

use std::time::Duration;

use sqlx::{ColumnIndex, Decode, Error, FromRow, Row, Type, error::BoxDynError};

use crate::{
    protocol::{ClientInfo, SessionId, SessionRef},
    session::{Issuer, Owner, Principal, Scope, Session, SessionRecord, Values},
    store::{Found, SessionInfo},
};

/// A row of the table of sessions. Its times are microseconds from now, by the database's clock.
pub(in crate::store) struct Stored {
    reference: SessionRef,
    record: SessionRecord,
    age: Duration,
    idle_left: Duration,
    life_left: Option<Duration>,
}

impl Stored {
    /// Reads a row of which the key and the owner are known, as a touch answers it.
    pub(in crate::store) fn of<'r, R: Row>(
        row: &'r R,
        reference: SessionRef,
        owner: Owner,
    ) -> Result<Self, Error>
    where
        &'static str: ColumnIndex<R>,
        Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
        bool: Decode<'r, R::Database> + Type<R::Database>,
        i64: Decode<'r, R::Database> + Type<R::Database>,
    {
        let client = match text(row, "client_name")? {
            Some(name) => Some(ClientInfo {
                name,
                version: name_in(row, "client_version")?,
            }),
            None => None,
        };
        let issuer = match row.try_get("by_layer")? {
            true => Issuer::Layer,
            false => Issuer::Inner,
        };
        let values = row.try_get::<Option<Vec<u8>>, _>("named_values")?;
        let life_left = row.try_get::<Option<i64>, _>("life_left")?.map(duration);
        let idle_left = duration(row.try_get("idle_left")?);
        Ok(Self {
            reference,
            record: SessionRecord {
                client,
                protocol_version: text(row, "protocol_version")?,
                values: Values::from_bytes(values.as_deref())
                    .map_err(|error| unreadable("named_values", error))?,
                ..SessionRecord::new(owner, issuer)
            },
            age: duration(row.try_get("age")?),
            idle_left: life_left.map_or(idle_left, |life_left| idle_left.min(life_left)),
            life_left,
        })
    }

    /// Whether nothing was left of its time.
    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn is_over(&self) -> bool {
        self.idle_left.is_zero()
    }

    pub(in crate::store) fn found(self, id: &SessionId) -> Found {
        Found {
            session: Session::new(id.clone(), self.record),
            age: self.age,
            idle_left: self.idle_left,
            life_left: self.life_left,
        }
    }

    pub(in crate::store) fn info(self) -> SessionInfo {
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
        let owner = Owner {
            scope: Scope::new(name_in(row, "scope")?),
            principal: text(row, "principal")?.map(Principal::new),
        };
        let reference = reference(&row.try_get::<Vec<u8>, _>("reference")?)?;
        let mut stored = Self::of(row, reference, owner)?;
        let params = row.try_get::<Option<Vec<u8>>, _>("initialize_params")?;
        stored.record.initialize_params = params.map(Into::into);
        Ok(stored)
    }
}

/// The reference that a row is keyed by.
pub(in crate::store) fn reference(bytes: &[u8]) -> Result<SessionRef, Error> {
    let bytes = bytes
        .try_into()
        .map_err(|_| unreadable("reference", "it is not 32 bytes long".into()))?;
    Ok(SessionRef::from_bytes(bytes))
}

fn text<'r, R: Row>(row: &'r R, column: &'static str) -> Result<Option<String>, Error>
where
    &'static str: ColumnIndex<R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|not_utf8| unreadable(column, not_utf8.into()))
}

fn name_in<'r, R: Row>(row: &'r R, column: &'static str) -> Result<String, Error>
where
    &'static str: ColumnIndex<R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    text(row, column)?.ok_or_else(|| unreadable(column, "it is null".into()))
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
