//! Sessions in an SQLite file, for one process whose sessions survive a restart.
//!
//! Long because the trait has many verbs, and each is a few lines here.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::{
    Error, SqlStr, Sqlite, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use self::{
    errors::failed,
    listen::Listener,
    statements::{NOW, end},
};
use super::{
    Created, Directory, EndReason, Expiry, Feed, Found, SessionStore, StoreError, StoreErrorKind,
    Terms, replace,
    sql::{self, Connections, Stored, Table},
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{Change, Owner, Scope, Session},
    sync::Mutex,
};

mod change;
mod create;
mod directory;
mod errors;
mod expire;
mod listen;
mod statements;
mod sweep;

/// Sessions in an SQLite file (3.42 or later), for one process whose sessions survive a restart.
///
/// ```no_run
/// use std::time::Duration;
/// use mcp_session_layer::{McpSessionLayer, SqliteStore};
///
/// # async fn run() -> anyhow::Result<()> {
/// let store = SqliteStore::open("sessions.db").await?;
/// tokio::spawn(store.clone().keep_swept(Duration::from_secs(60)));
/// let layer = McpSessionLayer::new(store);
/// # let _: McpSessionLayer = layer;
/// # Ok(())
/// # }
/// ```
///
/// # Power cuts
///
/// [`open`](Self::open) uses write-ahead logging, so that readers and the writer do not wait for each other, and flushes
/// to the disk (`synchronous = FULL`) only what ends a session or changes its owner
/// or its values. New sessions and touches are left
/// to the operating system (`NORMAL`), which makes them many times cheaper. A crash of the process loses nothing. A power
/// cut may lose the sessions created and the touches of the last moments, whose clients then start over; it never damages
/// the file, and never brings an ended session back.
///
/// # Pool
///
/// [`new`](Self::new) takes a pool of yours, with your settings. Use write-ahead logging there too. With `synchronous` at
/// `NORMAL` a power cut may bring an ended session back, with `FULL` each write waits for the disk. Keep `busy_timeout`
/// and `acquire_timeout` below the three seconds for which the layer waits. Each connection to `:memory:` is a database
/// of its own, so it takes a pool of exactly one connection that never expires.
///
/// # Tables
///
/// [`migrate`](Self::migrate) creates them, or run `migrations/sqlite/*.sql` of this crate as you run your own
/// migrations. Rows are keyed by the [`SessionRef`]: a stolen file holds no usable id. The clock is the
/// database's, which is the machine's, in milliseconds.
///
/// # Limits
///
/// Exact: SQLite has one writer at a time.
///
/// # Feed
///
/// Every end is written down in the file together with what it does, and read from there: at once by the store that made it and
/// its clones, and by other stores on the file, also of other processes, within a quarter of a second. For that [`migrate`](Self::migrate)
/// has to have been called.
///
/// So a second process may end sessions of a running one, or take over from it. To serve sessions from several
/// for long take a store that is made for it.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    readers: Connections<Sqlite>,
    /// Of one connection, because those that wait for each other within SQLite do so by looking again and again.
    writer: Connections<Sqlite>,
    /// Of another, which waits for the disk: for what a power cut must not undo.
    durable: SqlitePool,
    table: Table,
    load: SqlStr,
    fresh: SqlStr,
    touch: SqlStr,
    claim: SqlStr,
    listener: Mutex<Weak<Listener>>,
}

impl SqliteStore {
    /// A store in this file, in the table `mcp_sessions`. Both are made if they are not there.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or written.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(PATIENCE);
        let pool = |connections, synchronous| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .connect_lazy_with(options.clone().synchronous(synchronous))
        };
        let durable = pool(1, SqliteSynchronous::Full);
        let [readers, writer] = [READERS, 1].map(|size| pool(size, SqliteSynchronous::Normal));
        let store = Self::on(readers, writer, durable, Table::default());
        // By the one connection of its pool, since whoever opens a file first chooses its journal alone.
        store.migrate().await?;
        Ok(store)
    }

    /// A store in the table `mcp_sessions`. Nothing is opened until it is used.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self::on(pool.clone(), pool.clone(), pool, Table::default())
    }

    /// The same in another table.
    ///
    /// # Panics
    ///
    /// Unless the name is 1 to 40 ASCII letters, digits and underscores.
    #[must_use]
    pub fn with_table(self, name: &str) -> Self {
        let [readers, writer] =
            [&self.0.readers, &self.0.writer].map(|connections| connections.pool().clone());
        Self::on(readers, writer, self.0.durable.clone(), Table::new(name))
    }

    fn on(readers: SqlitePool, writer: SqlitePool, durable: SqlitePool, table: Table) -> Self {
        Self(Arc::new(Inner {
            load: table.sql(&statements::load()),
            fresh: table.sql(&statements::fresh()),
            touch: table.sql(&statements::touch()),
            claim: table.sql(&statements::claim()),
            listener: Mutex::default(),
            readers: Connections::new(readers),
            writer: Connections::new(writer),
            durable,
            table,
        }))
    }

    /// Creates the tables if they are not there. Safe to run at every start.
    ///
    /// # Errors
    ///
    /// When the file is locked, full or read-only.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        for migration in MIGRATIONS {
            let migration = sqlx::raw_sql(self.0.table.sql(migration));
            let migrated = migration.execute(&self.0.durable).await;
            migrated.map_err(failed("create the tables"))?;
        }
        Ok(())
    }

    /// What a statement of a touch or a claim answers on this connection.
    async fn extend(
        &self,
        sql: &SqlStr,
        connection: &mut SqliteConnection,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, Error> {
        let reference = id.reference();
        let rows = sqlx::query(sql.clone())
            .bind(&reference.as_bytes()[..])
            .bind(sql::scope(&owner.scope))
            .bind(sql::principal(owner))
            .bind(millis(idle))
            .bind(millis(sql::grace(idle)))
            // Not `fetch_optional`, which leaves before the change is committed.
            .fetch_all(connection)
            .await?;
        let stored = |row: &SqliteRow| Stored::of(row, reference, owner.clone());
        let stored = rows.first().map(stored).transpose()?;
        Ok(stored.map(|stored| stored.found(id)))
    }

    /// Ends one session, of this scope if there is one.
    async fn end_one(
        &self,
        doing: &'static str,
        reference: SessionRef,
        scope: Option<&Scope>,
        left: Option<Duration>,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let one = format!(
            "reference = ?1 and scope = coalesce(?2, scope) and expires > {NOW}
                and (?3 is null or expires <= {NOW} + ?3)"
        );
        let end = sqlx::query(self.0.table.sql(&end(&one, "?4")))
            .bind(&reference.as_bytes()[..])
            .bind(scope.map(sql::scope))
            .bind(left.map(millis))
            .bind(reason.as_str());
        let inner = Arc::clone(&self.0);
        finished(doing, async move {
            let gone = end.fetch_all(&inner.durable).await?;
            inner.announce();
            Ok(!gone.is_empty())
        })
        .await
    }
}

impl Inner {
    /// Something was written that is to be heard.
    fn announce(&self) {
        if let Some(listener) = self.listener.lock().upgrade() {
            listener.look();
        }
    }
}

impl SessionStore for SqliteStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.create_within(session, terms, true).await
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.create_within(session, terms, false).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let found = sqlx::query_as::<_, Stored>(self.0.load.clone())
            .bind(&id.reference().as_bytes()[..])
            .fetch_optional(self.0.readers.pool())
            .await;
        let found = found.map_err(failed("load a session"))?;
        Ok(found.map(|stored| stored.found(id)))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        // A look takes no lock, and mostly finds that there is nothing to write. If it does not, the update alone
        // answers.
        let touched = async {
            let inner = &self.0;
            let mut found = None;
            for (sql, connections) in [
                (&inner.fresh, &inner.readers),
                (&inner.touch, &inner.writer),
            ] {
                if found.is_none() {
                    let mut connection = connections.acquire().await?;
                    found = self.extend(sql, &mut connection, id, owner, idle).await?;
                    connections.hand_on(connection);
                }
            }
            Ok(found)
        };
        touched.await.map_err(failed("touch a session"))
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.end_one("delete a session", id.reference(), None, None, reason)
            .await
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let (doing, left) = ("delete an idle session", Some(left));
        self.end_one(doing, id.reference(), None, left, reason)
            .await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        let left = self.0.expire(&id.reference()).await;
        let left = left.map_err(failed("ask whether a session is over"))?;
        Ok(sql::expiry(left, id))
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
        let claimed = async {
            let mut connection = self.0.durable.acquire().await?;
            let claim = &self.0.claim;
            let found = self.extend(claim, &mut connection, id, owner, idle).await;
            self.0.announce();
            found
        };
        claimed.await.map_err(failed("claim a session"))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    /// Outside a tokio runtime there is none, because nothing could listen.
    fn feed(&self) -> Option<Feed> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let mut running = self.0.listener.lock();
        let listener = running.upgrade().unwrap_or_else(|| {
            let (pool, table) = (self.0.readers.pool().clone(), self.0.table.clone());
            Arc::new(Listener::start(&runtime, pool, table))
        });
        *running = Arc::downgrade(&listener);
        Some(listener.subscribe())
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("table", &self.0.table.name())
            .finish_non_exhaustive()
    }
}

/// Finishes this although the caller may be dropped meanwhile: what was ended must be heard at once.
async fn finished<T: Send + 'static>(
    doing: &'static str,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::spawn(work).await {
        Ok(answer) => answer.map_err(failed(doing)),
        // The runtime is shutting down.
        Err(stopped) => {
            Err(StoreError::new(StoreErrorKind::Unavailable, doing).with_source(stopped))
        }
    }
}

fn millis(duration: Duration) -> i64 {
    sql::micros(duration) / 1000
}

const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_sessions.sql"),
    include_str!("../../migrations/sqlite/0002_values.sql"),
    include_str!("../../migrations/sqlite/0003_ends.sql"),
];

/// How many connections read and touch. SQLite has one writer at a time, and each connection is a thread.
const READERS: u32 = 4;

/// How long a call waits for a connection, and that for the writer before it: less than the layer waits.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_and_claims_wait_for_the_disk_and_nothing_else_does() {
        let directory = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir(&directory).unwrap();
        let store = SqliteStore::open(directory.join("file")).await.unwrap();
        let pools = [
            (&store.0.durable, 2),
            (store.0.writer.pool(), 1),
            (store.0.readers.pool(), 1),
        ];
        for (pool, expected) in pools {
            let synchronous = sqlx::query_scalar::<_, i64>("pragma synchronous");
            assert_eq!(synchronous.fetch_one(pool).await.unwrap(), expected);
            let journal = sqlx::query_scalar::<_, String>("pragma journal_mode");
            assert_eq!(journal.fetch_one(pool).await.unwrap(), "wal");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
