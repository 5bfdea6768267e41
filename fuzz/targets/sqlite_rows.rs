//! Rows of an SQL table that the crate did not write, read back: an error, a session that the row names, or none. Never a
//! panic, and never somebody else's session. PostgreSQL's rows are read by the same code.
#![no_main]

mod rows;

use std::{env, process, sync::LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{
    SessionStore as _, SqliteStore,
    sqlx::{
        self, SqlitePool,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
    store::SessionFilter,
};
use tokio::runtime::{Builder, Runtime};

use self::rows::{HOUR, created, end, understood};

#[derive(Debug, Arbitrary)]
struct Row {
    scope: Option<Vec<u8>>,
    principal: Option<Option<Vec<u8>>>,
    by_layer: i64,
    client_name: Option<Vec<u8>>,
    client_version: Option<Vec<u8>>,
    protocol_version: Option<Vec<u8>>,
    created: Option<i64>,
    latest_touch: Option<i64>,
    used: i64,
    expires: Option<i64>,
    life_ends: Option<i64>,
    values: Option<Vec<u8>>,
    params: Option<Vec<u8>>,
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

static STORE: LazyLock<(SqlitePool, SqliteStore)> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        // A file, for the store closes a connection on which something failed, and with it what is in memory.
        let file = env::temp_dir().join(format!("fuzz-{}.db", process::id()));
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Off);
        let one = SqlitePoolOptions::new().max_connections(1);
        let pool = one.connect_with(options).await.unwrap();
        let store = SqliteStore::new(pool.clone());
        store.migrate().await.unwrap();
        (pool, store)
    })
});

fuzz_target!(|row: Row| {
    let (pool, store) = &*STORE;
    RUNTIME.block_on(check(&row, pool, store)).unwrap();
});

async fn check(row: &Row, pool: &SqlitePool, store: &SqliteStore) -> Result<(), sqlx::Error> {
    let session = created(store).await;
    let owner = session.owner();
    write(pool, row, session.reference().as_bytes()).await?;

    let loaded = understood(store.load(session.id()).await);
    let scope = row
        .scope
        .as_deref()
        .unwrap_or(owner.scope.as_str().as_bytes());
    let principal = row
        .principal
        .as_ref()
        .map_or(Some(&b"a"[..]), |principal| principal.as_deref());
    if let Some(found) = &loaded {
        let owner = found.session.owner();
        assert_eq!(owner.scope.as_str().as_bytes(), scope);
        assert_eq!(
            owner
                .principal
                .as_ref()
                .map(|name| name.as_str().as_bytes()),
            principal
        );
        assert!(found.life_left.is_none_or(|left| found.idle_left <= left));
    }
    if let Some(found) = understood(store.touch(session.id(), owner, HOUR).await) {
        assert_eq!(found.session.owner(), owner);
        assert_eq!(
            (scope, principal),
            (owner.scope.as_str().as_bytes(), Some(&b"a"[..]))
        );
    }
    let directory = store.directory().expect("SQLite lists");
    let filter = SessionFilter::Scope(owner.scope.clone());
    understood(directory.list(&filter, None, 10).await.map(Some));
    end(store, &session).await;
    sqlx::query("delete from mcp_sessions")
        .execute(pool)
        .await?;
    Ok(())
}

async fn write(pool: &SqlitePool, row: &Row, reference: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update mcp_sessions set scope = coalesce(?1, scope), principal = case when ?2 then ?3 else principal end, \
         by_layer = ?4, client_name = ?5, client_version = ?6, protocol_version = ?7, created = coalesce(?8, created), \
         latest_touch = coalesce(?9, latest_touch), used = ?10, expires = coalesce(?11, expires), life_ends = ?12 \
         where reference = ?13",
    )
    .bind(&row.scope)
    .bind(row.principal.is_some())
    .bind(row.principal.as_ref().and_then(Option::as_ref))
    .bind(row.by_layer)
    .bind(&row.client_name)
    .bind(&row.client_version)
    .bind(&row.protocol_version)
    .bind(row.created)
    .bind(row.latest_touch)
    .bind(row.used)
    .bind(row.expires)
    .bind(row.life_ends)
    .bind(reference)
    .execute(pool)
    .await?;
    for (table, value) in [
        ("values (reference, named_values)", &row.values),
        ("params (reference, initialize_params)", &row.params),
    ] {
        if let Some(value) = value {
            let insert = format!("insert into mcp_sessions_{table} values (?1, ?2)");
            sqlx::query(sqlx::AssertSqlSafe(insert))
                .bind(reference)
                .bind(value)
                .execute(pool)
                .await?;
        }
    }
    Ok(())
}
