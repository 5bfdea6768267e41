//! [`SqliteStore`], in files that are removed afterwards.

#![cfg(feature = "sqlite")]

mod file;
mod forgotten;
mod outages;
#[cfg(feature = "test-kit")]
mod processes;
#[cfg(feature = "test-kit")]
#[allow(dead_code)]
#[path = "../support/requests.rs"]
mod requests;
mod rows;
#[path = "../sql/mod.rs"]
mod sql;

use std::{path::PathBuf, time::Duration};

use mcp_session_layer::{
    ClientInfo, Session, SessionId, SqliteStore,
    sqlx::{SqlitePool, sqlite::*},
};
use sql::{session, unique};

/// A file that is removed with everything beside it.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(unique());
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.0.join("sessions.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(2))
    }

    async fn store(&self) -> SqliteStore {
        let store = SqliteStore::new(pool(self.options()).await);
        store.migrate().await.unwrap();
        store
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn pool(options: SqliteConnectOptions) -> SqlitePool {
    let pool = SqlitePoolOptions::new().acquire_timeout(Duration::from_secs(2));
    pool.connect_with(options).await.unwrap()
}

#[cfg(feature = "conformance")]
mod contract {
    use std::sync::Arc;

    use mcp_session_layer::{BoxSessionStore, conformance};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept() {
        let file = File::new();
        let store = file.store().await;
        conformance::all(&store, sleep).await;
        conformance::limits_hold_at_once(&store, sleep).await;
        conformance::a_long_list_is_read_in_pages(&store, sleep, 1_000).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_in_a_file_that_the_store_opened() {
        let file = File::new();
        let store = SqliteStore::open(file.0.join("sessions.db")).await.unwrap();
        conformance::all(&store, sleep).await;
        conformance::limits_hold_at_once(&store, sleep).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_boxed() {
        let file = File::new();
        conformance::all(&BoxSessionStore::new(file.store().await), sleep).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_in_an_arc() {
        let file = File::new();
        conformance::all(&Arc::new(file.store().await), sleep).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_kept_behind_a_cache() {
        let file = File::new();
        sql::keeps_the_contract_behind_a_cache(file.store().await).await;
    }
}

/// A session with every field, and long parameters.
fn full_session() -> Session {
    let mut record = session().record();
    record.client = Some(ClientInfo {
        name: "a\0b".to_owned(),
        version: String::new(),
    });
    record.protocol_version = Some("2025-11-25".to_owned());
    record.initialize_params = Some(vec![b'x'; 10_000].into());
    Session::new(SessionId::issue(), record)
}
