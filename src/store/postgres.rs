//! Sessions in a PostgreSQL table, for several nodes.

use std::{
    fmt, io,
    num::NonZeroU64,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{
    Connection as _, Error, Executor as _, FromRow as _, PgPool, Postgres, Row as _, SqlStr,
    postgres::PgRow,
};

use self::{held::Held, listen::Listener, rooms::Rooms};
use super::{
    AtLimit, BoxFuture, Created, Directory, EndReason, Feed, Found, Limit, SessionFilter,
    SessionInfo, SessionStore, StoreError, Terms,
    sql::{self, Connections, Stored, Table, micros},
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{Owner, Scope, Session},
};

mod held;
mod listen;
mod rooms;

/// Sessions in a PostgreSQL table (11 or later), for several nodes that share a database.
///
/// ```no_run
/// use std::time::Duration;
/// use mcp_session_layer::{McpSessionLayer, PostgresStore, sqlx};
///
/// # async fn run() -> anyhow::Result<()> {
/// let pool = sqlx::postgres::PgPoolOptions::new()
///     .max_connections(10)
///     .acquire_timeout(Duration::from_secs(2))
///     .connect("postgres://mcp@localhost/mcp")
///     .await?;
/// let store = PostgresStore::new(pool);
/// store.migrate().await?;
/// tokio::spawn(store.clone().keep_swept(Duration::from_secs(60)));
/// let layer = McpSessionLayer::new(store);
/// # let _: McpSessionLayer<PostgresStore> = layer;
/// # Ok(())
/// # }
/// ```
///
/// # Pool
///
/// The pool is yours, and so are its settings; a TLS feature of `sqlx` is chosen in your own manifest. Leave the
/// isolation level at `read committed`, PostgreSQL's default. Set `acquire_timeout` to a second or two: the layer waits
/// three seconds for an answer, and a pool that waits for thirty has nothing to say by then. `sqlx` asks the server
/// for a sign of life before each use of a connection; `test_before_acquire(false)` saves that round trip and costs an
/// error for each connection that broke while it was idle, of which all but births are tried again.
///
/// A transaction pooler in between must know prepared statements, as PgBouncer 1.21 does with
/// `max_prepared_statements`. Others mix up the statements of their clients.
///
/// A call that is dropped gives its connection a second to finish, and then gives it up, so that a server that hangs
/// does not use up the pool.
///
/// The first [`feed`](SessionStore::feed) opens one more connection with the pool's options, outside the pool,
/// and listens on it until the last feed is dropped.
///
/// # Table
///
/// [`migrate`](Self::migrate) creates it, or run `migrations/postgres/*.sql` of this crate as you run your own
/// migrations. Rows are keyed by the [`SessionRef`]: a stolen table holds no usable id. The clock is the
/// database's.
///
/// # Limits
///
/// [`Terms::total`] and [`Terms::per_principal`] are soft: births that run at the very same moment, on whichever
/// node, do not count each other and may pass a limit by their number. And while less than nine tenths of a total are
/// there, a node counts once a second, so that it takes the other nodes a tenth of the total in births within one
/// second to pass it by more.
///
/// # Feed
///
/// `LISTEN`, on a channel named like the table. A transaction pooler breaks that silently, so every ten seconds the
/// listener sends itself a message through the pool. While it does not hear them it says so in the log, once, and says
/// [`FeedEvent::Gap`](super::FeedEvent::Gap) every few seconds, upon which subscribers ask.
///
/// # Replicas
///
/// An answer of a standby is an error: only the primary knows which sessions are absent.
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    connections: Connections<Postgres>,
    table: Table,
    create: SqlStr,
    load: SqlStr,
    touch: SqlStr,
    claim: SqlStr,
    delete: SqlStr,
    rooms: Rooms,
    listener: Mutex<Weak<Listener>>,
}

impl PostgresStore {
    /// A store in the table `mcp_sessions`. Nothing is sent until it is used.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::on(pool, Table::default())
    }

    /// The same in another table. Its schema is the first in the connections' `search_path`.
    ///
    /// # Panics
    ///
    /// Unless the name is 1 to 40 ASCII letters, digits and underscores. It is quoted: upper case stays upper case.
    #[must_use]
    pub fn with_table(self, name: &str) -> Self {
        Self::on(self.0.connections.pool().clone(), Table::new(name))
    }

    fn on(pool: PgPool, table: Table) -> Self {
        Self(Arc::new(Inner {
            create: table.sql(&CREATE.replace("{name}", NAME)),
            load: table.sql(&from_primary(&format!(
                "select reference, scope, principal, initialize_params, {ANSWER} from \"mcp_sessions\"
                where reference = $1 and expires > clock_timestamp()"
            ))),
            touch: table.sql(&touch()),
            claim: table.sql(&claim()),
            delete: table.sql(&end("reference = $1", "$2")),
            rooms: Rooms::default(),
            listener: Mutex::default(),
            connections: Connections::new(pool),
            table,
        }))
    }

    /// Creates the tables if they are not there. Safe to run at every start and on several nodes at once.
    ///
    /// # Errors
    ///
    /// When the database is away, or does not let this user create tables.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut held = self.hold("create the tables").await?;
        let migrated = async {
            let mut transaction = held.begin().await?;
            sqlx::query("select pg_advisory_xact_lock(hashtext($1))")
                .bind(self.0.table.name())
                .execute(&mut *transaction)
                .await?;
            for migration in MIGRATIONS {
                sqlx::raw_sql(self.0.table.sql(migration))
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        }
        .await;
        held.done(migrated)
    }

    /// Deletes up to a thousand expired sessions and says how many it found. They are absent without that; it
    /// is for the disk.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let sweep = self.0.table.sql(SWEEP);
        let mut held = self.hold("sweep expired sessions").await?;
        let swept = sqlx::query_scalar::<_, i64>(sweep)
            .bind(BATCH)
            .fetch_one(&mut *held)
            .await;
        Ok(held.done(swept)?.unsigned_abs())
    }

    /// Sweeps now and then, and goes on after errors. Spawn it; it ends when the pool is closed. Several nodes may do
    /// so at once without waiting for each other.
    pub async fn keep_swept(self, every: Duration) {
        while !self.0.connections.pool().is_closed() {
            match self.sweep().await {
                // There may be more.
                Ok(swept) if swept >= BATCH.unsigned_abs() => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "will sweep later");
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn hold(&self, doing: &'static str) -> Result<Held<'_>, StoreError> {
        Held::acquire(&self.0.connections, doing).await
    }

    /// Touches, or claims.
    async fn extend(
        &self,
        (sql, doing): (&SqlStr, &'static str),
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let reference = id.reference();
        let mut held = self.hold(doing).await?;
        let rows = sqlx::query(sql.clone())
            .bind(&reference.as_bytes()[..])
            .bind(sql::scope(&owner.scope))
            .bind(sql::principal(owner))
            .bind(micros(idle))
            .bind(micros(sql::grace(idle)))
            // Not `fetch_optional`, which leaves before the change is committed.
            .fetch_all(&mut *held)
            .await;
        let stored = |row: &PgRow| Stored::of(row, reference, owner.clone());
        let stored = rows.and_then(|rows| rows.first().map(stored).transpose());
        Ok(held.done(stored)?.map(|stored| stored.found(id)))
    }
}

impl SessionStore for PostgresStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let asked = Instant::now();
        let record = session.record();
        let client = record.client.as_ref();
        let first = terms.initial_idle.min(terms.idle);
        let untouched = match terms.at_limit {
            AtLimit::Refuse => None,
            AtLimit::Evict { untouched } => Some(micros(untouched)),
        };
        let scope = &record.owner.scope;
        let total = terms.total;
        let total = total.filter(|&total| !self.0.rooms.take(scope, total, asked));
        let limit = |limit: NonZeroU64| i64::try_from(limit.get()).unwrap_or(i64::MAX);

        let mut held = self.hold("create a session").await?;
        if let Err(error) = held.prepare(self.0.create.clone()).await {
            return held.done(Err(error));
        }
        // So far it has waited for a connection, and, the first time there, for the statement to be prepared: that is part
        // of the birth. The last microsecond is for the rounding.
        let begun = terms.started_ago.saturating_add(asked.elapsed());
        let row = sqlx::query(self.0.create.clone())
            .bind(&session.reference().as_bytes()[..])
            .bind(sql::scope(scope))
            .bind(sql::principal(&record.owner))
            .bind(record.issuer == crate::Issuer::Layer)
            .bind(client.map(|client| client.name.as_bytes()))
            .bind(client.map(|client| client.version.as_bytes()))
            .bind(record.protocol_version.as_deref().map(str::as_bytes))
            .bind(record.initialize_params.as_deref())
            .bind(micros(terms.life.map_or(first, |life| first.min(life))))
            .bind(terms.life.map(micros))
            .bind(total.map(limit))
            .bind(terms.per_principal.map(limit))
            .bind(untouched)
            .bind(micros(begun) + 1)
            .fetch_one(&mut *held)
            .await;
        let (created, total) = held.done(row.and_then(|row| created(&row)))?;
        if let Some(sessions) = total {
            self.0.rooms.counted(scope, sessions, asked);
        }
        Ok(created)
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let mut held = self.hold("load a session").await?;
        let rows = sqlx::query(self.0.load.clone())
            .bind(&id.reference().as_bytes()[..])
            .fetch_all(&mut *held)
            .await;
        let mut found = held.done(rows.and_then(stored))?;
        Ok(found.pop().map(|stored| stored.found(id)))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.extend((&self.0.touch, "touch a session"), id, owner, idle)
            .await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        let mut held = self.hold("delete a session").await?;
        let ended = sqlx::query_scalar::<_, i64>(self.0.delete.clone())
            .bind(&id.reference().as_bytes()[..])
            .bind(reason.as_str())
            .fetch_one(&mut *held)
            .await;
        Ok(held.done(ended)? > 0)
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.extend((&self.0.claim, "claim a session"), id, owner, idle)
            .await
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    /// Outside a tokio runtime there is none, because nothing could listen.
    fn feed(&self) -> Option<Feed> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let mut running = self.0.listener.lock();
        let listener = running.upgrade().unwrap_or_else(|| {
            let (pool, channel) = (self.0.connections.pool().clone(), self.0.table.name());
            Arc::new(Listener::start(&runtime, pool, channel.to_owned()))
        });
        *running = Arc::downgrade(&listener);
        Some(listener.subscribe())
    }
}

impl Directory for PostgresStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let count = self.0.table.sql(&from_primary(&format!(
                "select count(*) from \"mcp_sessions\" where {} and expires > now()",
                meant(filter)
            )));
            let mut held = self.hold("count sessions").await?;
            let row = sqlx::query(count)
                .bind(sql::scope(filter.scope()))
                .bind(principal(filter))
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
                meant(filter)
            )));
            let mut held = self.hold("list sessions").await?;
            let rows = sqlx::query(list)
                .bind(sql::scope(filter.scope()))
                .bind(principal(filter))
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

    /// Two steps: a mark that refuses the births on their way, and the end of all that were recorded before.
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
                // Waits for the births that have looked for marks already, and keeps out those that have not.
                sqlx::raw_sql(table.sql(
                    "lock table \"mcp_sessions_revoked\" in share row exclusive mode",
                ))
                .execute(&mut *transaction)
                .await?;
                sqlx::query(table.sql(MARK))
                    .bind(sql::scope(filter.scope()))
                    .bind(matches!(filter, SessionFilter::Scope(_)))
                    .bind(principal(filter))
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;

                // Locked in one order, so that two of these do not wait for each other.
                let all = format!(
                    "reference in (
                        select reference from \"mcp_sessions\" where {} order by reference for update
                    )",
                    meant(filter)
                );
                sqlx::query_scalar::<_, i64>(table.sql(&end(&all, "$3")))
                    .bind(sql::scope(filter.scope()))
                    .bind(principal(filter))
                    .bind(reason.as_str())
                    .fetch_one(&mut *held)
                    .await
            }
            .await;
            Ok(held.done(ended)?.unsigned_abs())
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.0.table.name())
            .finish_non_exhaustive()
    }
}

/// A statement that reads a session, and writes the touch only if it is due.
///
/// Whether it is due is decided once, on the row as it was when the statement began. If it is, the update alone
/// answers, which after waiting for the row looks at what became of it meanwhile.
fn touch() -> String {
    let live = "reference = $1 and scope = $2 and principal is not distinct from $3
        and expires > clock_timestamp()";
    format!(
        "with fresh as materialized (
            select {ANSWER} from \"mcp_sessions\"
            where {live} and used and latest_touch > clock_timestamp()
                and expires >= clock_timestamp() + $4::bigint * interval '1 microsecond'
        ),
        written as (
            update \"mcp_sessions\" set {EXTENDED} where {live} and not exists (select from fresh)
            returning {ANSWER}
        )
        select * from fresh union all select * from written"
    )
}

/// A statement that changes the owner, and always extends.
fn claim() -> String {
    format!(
        "update \"mcp_sessions\" set principal = $3, {EXTENDED}
        where reference = $1 and scope = $2 and (principal is null or principal = $3)
            and expires > clock_timestamp()
        returning {ANSWER}"
    )
}

/// A statement that ends the live sessions of this condition, says so with the reason in this parameter, and counts
/// them.
fn end(condition: &str, reason: &str) -> String {
    format!(
        "with gone as (
            delete from \"mcp_sessions\" where {condition} and expires > clock_timestamp() returning reference
        )
        select count(pg_notify('mcp_sessions', {NAME} || ' ' || {reason})) from gone"
    )
}

/// A query whose answer says whether it comes from a standby, even if it finds no row.
fn from_primary(query: &str) -> String {
    format!(
        "select pg_is_in_recovery() as is_standby, found.*
        from (select) as always left join lateral ({query}) as found on true"
    )
}

/// The condition of the sessions that are meant, with the scope as `$1` and the principal, or null, as `$2`.
fn meant(filter: &SessionFilter) -> &'static str {
    match filter {
        SessionFilter::Scope(_) => "scope = $1 and $2::bytea is null",
        // "Is not distinct from" would use no index.
        SessionFilter::Owner(owner) if owner.principal.is_some() => "scope = $1 and principal = $2",
        SessionFilter::Owner(_) => "scope = $1 and principal is null and $2::bytea is null",
    }
}

fn principal(filter: &SessionFilter) -> Option<&[u8]> {
    match filter {
        SessionFilter::Scope(_) => None,
        SessionFilter::Owner(owner) => sql::principal(owner),
    }
}

/// What became of a birth, and how many sessions the scope then has, if they were counted.
fn created(row: &PgRow) -> Result<(Created, Option<u64>), Error> {
    let is_new = row.try_get("is_new")?;
    let evicted = row.try_get::<Option<Vec<u8>>, _>("evicted")?;
    let created = if is_new {
        Created::New {
            left: None,
            evicted: evicted.as_deref().map(sql::reference).transpose()?,
        }
    } else if row.try_get("revoked")? {
        Created::Revoked
    } else if row.try_get("taken")? {
        Created::Exists
    } else if row.try_get("principal_full")? {
        Created::Full(Limit::PerPrincipal)
    } else if row.try_get("total_full")? {
        Created::Full(Limit::Total)
    } else {
        // Another birth of this id was faster.
        Created::Exists
    };
    let total = row.try_get::<Option<i64>, _>("total")?;
    Ok((
        created,
        total.map(|total| total.unsigned_abs() + u64::from(is_new)),
    ))
}

/// The sessions in an answer to a query [`from_primary`].
fn stored(rows: Vec<PgRow>) -> Result<Vec<Stored>, Error> {
    let mut found = Vec::new();
    for row in rows {
        check_primary(&row)?;
        if row.try_get::<Option<&[u8]>, _>("reference")?.is_some() {
            found.push(Stored::from_row(&row)?);
        }
    }
    Ok(found)
}

fn check_primary(row: &PgRow) -> Result<(), Error> {
    match row.try_get("is_standby")? {
        true => Err(Error::Io(io::Error::other(
            "connected to a standby, which may lag behind the primary",
        ))),
        false => Ok(()),
    }
}

/// What a touch answers: of a row whose key and owner are known.
const ANSWER: &str = "
    by_layer, client_name, client_version, protocol_version,
    (date_part('epoch', clock_timestamp() - born) * 1000000)::bigint as age,
    (date_part('epoch', expires - clock_timestamp()) * 1000000)::bigint as idle_left,
    (date_part('epoch', ends - clock_timestamp()) * 1000000)::bigint as life_left";

/// What a touch writes. clock_timestamp(), not now(): a statement that has waited for the row must not wake a session
/// that expired while it waited.
const EXTENDED: &str = "
    used = true,
    latest_touch = greatest(latest_touch, clock_timestamp() + $5::bigint * interval '1 microsecond'),
    expires = greatest(
        expires, least(clock_timestamp() + ($4::bigint + $5::bigint) * interval '1 microsecond', ends)
    )";

/// A reference as [`SessionRef`] writes it.
const NAME: &str = "translate(rtrim(encode(reference, 'base64'), '='), '+/', '-_')";

const CREATE: &str = include_str!("postgres/create.sql");

const MARK: &str = "
    insert into \"mcp_sessions_revoked\" (scope, everyone, principal, at)
    values ($1, $2, $3, clock_timestamp())";

const SWEEP: &str = "
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

const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/postgres/0001_sessions.sql")];

/// How many rows one sweep deletes at most.
const BATCH: i64 = 1000;
