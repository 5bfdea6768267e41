//! Sessions in a PostgreSQL table, for several nodes.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::{Connection as _, FromRow as _, PgPool, Postgres, Row as _, SqlStr, postgres::PgRow};

use self::{
    connection::Held,
    limits::RecentCounts,
    listen::Listener,
    statements::{ANSWER, IDLE, SWEEP, claim, end, expire, fresh, from_primary, stored, touch},
};
use super::{
    Created, Directory, EndReason, Expiry, Feed, Found, SessionStore, StoreError, Terms,
    replace::{self, Replace},
    sql::{self, Connections, Stored, Table, micros},
};
use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session},
    sync::Mutex,
};

mod connection;
mod create;
mod directory;
mod limits;
mod listen;
mod statements;

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
/// # let _: McpSessionLayer = layer;
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
/// error for each connection that broke while it was idle, of which all but creations are tried again.
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
/// migrations. Rows are keyed by the [`SessionRef`](crate::protocol::SessionRef): a stolen table holds no usable id.
/// The clock is the database's.
///
/// # Touches
///
/// One that finds enough idle time left is a plain `select`. Others are an `update` after it, and so two round trips: the
/// first of a session, and at most one in a sixteenth of the idle time.
///
/// # Limits
///
/// [`Terms::total`] and [`Terms::per_principal`] are soft: creations that run at the very same moment, on whichever
/// node, do not count each other and may pass a limit by their number. And while less than nine tenths of a total are
/// there, a node counts once a second, so that it takes the other nodes a tenth of the total in creations within one
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
    fresh: SqlStr,
    touch: SqlStr,
    claim: SqlStr,
    delete: SqlStr,
    delete_idle: SqlStr,
    expire: SqlStr,
    replace: SqlStr,
    counts: RecentCounts,
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
            create: table.sql(&create::statement()),
            load: table.sql(&from_primary(&format!(
                "select reference, scope, principal, initialize_params, {ANSWER} from \"mcp_sessions\"
                where reference = $1 and expires > clock_timestamp()"
            ))),
            fresh: table.sql(&fresh()),
            touch: table.sql(&touch()),
            claim: table.sql(&claim()),
            delete: table.sql(&end("reference = $1", "$2")),
            delete_idle: table.sql(&end(IDLE, "$2")),
            expire: table.sql(&expire()),
            replace: table.sql(&statements::replace()),
            counts: RecentCounts::default(),
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
            .bind(i64::from(sql::SWEPT_AT_ONCE))
            .fetch_one(&mut *held)
            .await;
        Ok(held.done(swept)?.unsigned_abs())
    }

    /// Sweeps now and then, and goes on after errors. Spawn it; it ends when the pool is closed. Several nodes may do
    /// so at once without waiting for each other.
    pub async fn keep_swept(self, every: Duration) {
        let sweep = || {
            let store = self.clone();
            async move { store.sweep().await }
        };
        sql::keep_swept(self.0.connections.pool().clone(), every, sweep).await;
    }

    async fn hold(&self, doing: &'static str) -> Result<Held<'_>, StoreError> {
        Held::acquire(&self.0.connections, doing).await
    }

    /// Touches, or claims: the first of these statements that finds the session answers.
    async fn extend(
        &self,
        statements: &[&SqlStr],
        doing: &'static str,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let reference = id.reference();
        let mut held = self.hold(doing).await?;
        let stored = async {
            for sql in statements {
                let rows = sqlx::query((*sql).clone())
                    .bind(&reference.as_bytes()[..])
                    .bind(sql::scope(&owner.scope))
                    .bind(sql::principal(owner))
                    .bind(micros(idle))
                    .bind(micros(sql::grace(idle)))
                    // Not `fetch_optional`, which leaves before the change is committed.
                    .fetch_all(&mut *held)
                    .await?;
                if let Some(row) = rows.first() {
                    return Stored::of(row, reference, owner.clone()).map(Some);
                }
            }
            Ok(None)
        }
        .await;
        Ok(held.done(stored)?.map(|stored| stored.found(id)))
    }
}

impl SessionStore for PostgresStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.insert(session, terms, true).await
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.insert(session, terms, false).await
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
        let statements = [&self.0.fresh, &self.0.touch];
        self.extend(&statements, "touch a session", id, owner, idle)
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

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let mut held = self.hold("delete an idle session").await?;
        let ended = sqlx::query_scalar::<_, i64>(self.0.delete_idle.clone())
            .bind(&id.reference().as_bytes()[..])
            .bind(reason.as_str())
            .bind(micros(left))
            .fetch_one(&mut *held)
            .await;
        Ok(held.done(ended)? > 0)
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        let mut held = self.hold("ask whether a session is over").await?;
        let rows = sqlx::query(self.0.expire.clone())
            .bind(&id.reference().as_bytes()[..])
            .fetch_all(&mut *held)
            .await;
        let left = |row: &PgRow| match row.try_get("is_over")? {
            true => Ok(None),
            false => Stored::from_row(row).map(Some),
        };
        let left = rows.and_then(|rows| rows.first().map_or(Ok(None), left));
        Ok(sql::expiry(held.done(left)?, id))
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        replace::change(self, id, owner, change).await
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.extend(&[&self.0.claim], "claim a session", id, owner, idle)
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

impl Replace for PostgresStore {
    async fn replace(
        &self,
        id: &SessionId,
        owner: &Owner,
        before: Option<Vec<u8>>,
        after: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let mut held = self.hold(replace::DOING).await?;
        let changed = sqlx::query_scalar::<_, i64>(self.0.replace.clone())
            .bind(&id.reference().as_bytes()[..])
            .bind(sql::scope(&owner.scope))
            .bind(sql::principal(owner))
            .bind(after)
            .bind(before)
            .fetch_one(&mut *held)
            .await;
        Ok(held.done(changed)? > 0)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.0.table.name())
            .finish_non_exhaustive()
    }
}

const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/postgres/0001_sessions.sql"),
    include_str!("../../migrations/postgres/0002_values.sql"),
];
