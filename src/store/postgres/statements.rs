//! The statements, and how their answers are read.

use std::io;

use sqlx::{Error, FromRow as _, Row as _, postgres::PgRow};

use crate::store::sql::Stored;

/// A statement that finds a session whose touch need not be written: a plain read, which costs the server a third less than
/// one that could write. On a standby it finds none, so that the [touch](touch) fails there.
pub(super) fn fresh() -> String {
    format!(
        "select {ANSWER} from \"mcp_sessions\"
        where {OWNED} and used and latest_touch > clock_timestamp() and not pg_is_in_recovery()
            and expires >= clock_timestamp() + $4::bigint * interval '1 microsecond'"
    )
}

/// A statement that writes a touch. It alone says that a session is absent.
pub(super) fn touch() -> String {
    extend("principal is not distinct from $3", EXTENDED, ANSWER)
}

/// A statement that changes the owner, always extends, and announces it.
pub(super) fn claim() -> String {
    extend(
        "(principal is null or principal = $3)",
        &format!("principal = $3, {EXTENDED}"),
        &format!("{ANSWER}, pg_notify('mcp_sessions', {NAME} || ' changed') as announced"),
    )
}

/// Locks the row whatever its time: a condition on that would pass over a row which a touch of its last moment is just
/// extending, instead of waiting for what becomes of it.
fn extend(owned: &str, set: &str, answer: &str) -> String {
    format!(
        "with held as materialized (
            select reference as held, expires as held_until
            from \"mcp_sessions\" where reference = $1 and scope = $2 and {owned} for update
        )
        update \"mcp_sessions\" set {set} from held
        where reference = held.held and held.held_until > clock_timestamp()
        returning {answer}"
    )
}

/// A statement that writes a live session's values in place of these, and announces it.
pub(super) fn replace() -> String {
    format!(
        "with changed as (
            update \"mcp_sessions\" set named_values = $4
            where reference = $1 and scope = $2 and principal is not distinct from $3
                and named_values is not distinct from $5 and expires > clock_timestamp()
            returning reference
        )
        select count(pg_notify('mcp_sessions', {NAME} || ' changed')) from changed"
    )
}

/// A statement that locks a row, so that it sees what a touch made of it just now, and removes it if its time is up. It
/// answers the row, and whether it is over.
pub(super) fn expire() -> String {
    format!(
        "with held as materialized (
            select reference, scope, principal, initialize_params, {ANSWER},
                expires <= clock_timestamp() as is_over
            from \"mcp_sessions\" where reference = $1 for update
        ),
        gone as (
            delete from \"mcp_sessions\" where reference in (select reference from held where is_over)
        )
        select * from held"
    )
}

/// A statement that ends the live sessions of this condition, says so with the reason in this parameter, and counts
/// them.
pub(super) fn end(condition: &str, reason: &str) -> String {
    format!(
        "with gone as (
            delete from \"mcp_sessions\" where {condition} and expires > clock_timestamp() returning reference
        )
        select count(pg_notify('mcp_sessions', {NAME} || ' ' || {reason})) from gone"
    )
}

/// A session with at most so much of its idle time left. A touch under way is waited for, and then looked at.
pub(super) const IDLE: &str =
    "reference = $1 and expires <= clock_timestamp() + $3::bigint * interval '1 microsecond'";

/// A query whose answer says whether it comes from a standby, even if it finds no row.
pub(super) fn from_primary(query: &str) -> String {
    format!(
        "select pg_is_in_recovery() as is_standby, found.*
        from (select) as always left join lateral ({query}) as found on true"
    )
}

/// The sessions in an answer to a query [`from_primary`].
pub(super) fn stored(rows: Vec<PgRow>) -> Result<Vec<Stored>, Error> {
    let mut found = Vec::new();
    for row in rows {
        check_primary(&row)?;
        if row.try_get::<Option<&[u8]>, _>("reference")?.is_some() {
            found.push(Stored::from_row(&row)?);
        }
    }
    Ok(found)
}

pub(super) fn check_primary(row: &PgRow) -> Result<(), Error> {
    match row.try_get("is_standby")? {
        true => Err(Error::Io(io::Error::other(
            "connected to a standby, which may lag behind the primary",
        ))),
        false => Ok(()),
    }
}

/// A live session of this owner.
const OWNED: &str = "reference = $1 and scope = $2 and principal is not distinct from $3
    and expires > clock_timestamp()";

/// What a touch answers: of a row whose key and owner are known.
pub(super) const ANSWER: &str = "
    by_layer, client_name, client_version, protocol_version, named_values,
    (date_part('epoch', clock_timestamp() - created) * 1000000)::bigint as age,
    (date_part('epoch', expires - clock_timestamp()) * 1000000)::bigint as idle_left,
    (date_part('epoch', life_ends - clock_timestamp()) * 1000000)::bigint as life_left";

/// What a touch writes. clock_timestamp(), not now(): a statement that has waited for the row must not wake a session
/// that expired while it waited.
pub(super) const EXTENDED: &str = "
    used = true,
    latest_touch = greatest(latest_touch, clock_timestamp() + $5::bigint * interval '1 microsecond'),
    expires = greatest(
        expires, least(clock_timestamp() + ($4::bigint + $5::bigint) * interval '1 microsecond', life_ends)
    )";

/// A reference as [`SessionRef`] writes it.
pub(super) const NAME: &str = "translate(rtrim(encode(reference, 'base64'), '='), '+/', '-_')";

pub(super) const SWEEP: &str = "
    with old as (
        select reference from \"mcp_sessions\" where expires <= clock_timestamp()
        limit $1 for update skip locked
    ),
    gone as (
        delete from \"mcp_sessions\" where reference in (select reference from old) returning reference
    ),
    forgotten as (
        delete from \"mcp_sessions_revoked\" where at < now() - interval '1 hour'
    )
    select count(*) from gone";
