//! [`SqliteStore`], in files that are removed afterwards.

#![cfg(feature = "sqlite")]

mod sql;

use std::{path::PathBuf, time::Duration};

use mcp_session_layer::{
    ClientInfo, Session, SessionId, SessionStore as _, SqliteStore,
    sqlx::{self, SqlitePool, sqlite::*},
    store::{Created, Directory as _, EndReason, FeedEvent, SessionFilter, StoreErrorKind},
};
use sql::{LONG, listen_to_the_log, logged, owner, session, terms, terms_of, unique};
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

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

#[tokio::test]
async fn sessions_and_ends_survive_a_restart() {
    let file = File::new();
    let (lives, ended) = (full_session(), session());
    let first = file.store().await;
    for session in [&lives, &ended] {
        first.create(session, &terms()).await.unwrap();
    }
    let found = first
        .touch(lives.id(), lives.owner(), LONG)
        .await
        .unwrap()
        .unwrap();
    assert!(first.delete(ended.id(), EndReason::Deleted).await.unwrap());
    drop(first);

    let second = file.store().await;
    let again = second.load(lives.id()).await.unwrap().unwrap();
    assert_eq!(again.session.record(), lives.record());
    assert!(again.age >= found.age && again.idle_left <= found.idle_left);
    assert!(
        again.idle_left + Duration::from_secs(60) > LONG,
        "{again:?}"
    );
    assert!(second.load(ended.id()).await.unwrap().is_none());
    assert!(
        second
            .touch(ended.id(), ended.owner(), LONG)
            .await
            .unwrap()
            .is_none()
    );
}

/// A store that made its file itself, with two processes in mind: one that is stopped, one that starts.
#[tokio::test]
async fn a_store_opens_its_file_itself() {
    let file = File::new();
    let path = file.0.join("sessions.db");
    let (stays, ended) = (session(), session());
    let first = SqliteStore::open(&path).await.unwrap();
    for session in [&stays, &ended] {
        first.create(session, &terms()).await.unwrap();
    }
    let mut feed = first.feed().unwrap();
    assert!(first.delete(ended.id(), EndReason::Deleted).await.unwrap());
    let heard = FeedEvent::Ended {
        reference: *ended.reference(),
        reason: EndReason::Deleted,
    };
    assert_eq!(feed.next().await, Some(heard));

    let second = SqliteStore::open(&path).await.unwrap();
    assert!(second.load(stays.id()).await.unwrap().is_some());
    assert!(second.load(ended.id()).await.unwrap().is_none());
    let nowhere = SqliteStore::open(file.0.join("none/sessions.db")).await;
    let error = nowhere.expect_err("there is no such directory");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_may_run_again_and_at_once() {
    let file = File::new();
    // The first connection chooses the journal, and wants to be alone for that.
    pool(file.options()).await;
    let migrate = |_| {
        let options = file.options();
        tokio::spawn(async move {
            let pool = pool(options).await;
            SqliteStore::new(pool).migrate().await
        })
    };
    for migrated in futures_util::future::join_all((0..4).map(migrate)).await {
        migrated.unwrap().unwrap();
    }
    let session = session();
    file.store().await.create(&session, &terms()).await.unwrap();
    let store = file.store().await;
    assert!(
        store.load(session.id()).await.unwrap().is_some(),
        "nothing is lost"
    );
}

#[tokio::test]
async fn the_shipped_files_make_the_table() {
    let file = File::new();
    let pool = pool(file.options()).await;
    for _ in 0..2 {
        let shipped = include_str!("../migrations/sqlite/0001_sessions.sql");
        sqlx::raw_sql(shipped).execute(&pool).await.unwrap();
    }
    let store = SqliteStore::new(pool);
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    assert!(store.load(session.id()).await.unwrap().is_some());
}

#[tokio::test]
async fn each_verb_is_one_statement() {
    listen_to_the_log();
    let file = File::new();
    let table = unique();
    let store = SqliteStore::new(pool(file.options()).await).with_table(&table);
    store.migrate().await.unwrap();
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    let (id, owner) = (session.id(), session.owner());
    // The driver's thread may log after it has answered.
    let settled = || async {
        sleep(Duration::from_millis(50)).await;
        logged(&table).len()
    };
    let before = settled().await;
    store.load(id).await.unwrap();
    assert_eq!(settled().await - before, 1, "load");
    // A look, which finds that it is due, and the update, which decides.
    store.touch(id, owner, LONG).await.unwrap();
    assert_eq!(settled().await - before, 3, "first touch");
    store.touch(id, owner, LONG).await.unwrap();
    assert_eq!(settled().await - before, 4, "touch");
    store.claim(id, owner, LONG).await.unwrap();
    assert_eq!(settled().await - before, 5, "claim");
    store.delete(id, EndReason::Deleted).await.unwrap();
    assert_eq!(settled().await - before, 6, "delete");
    assert!(logged(id.expose()).is_empty(), "an id is in no statement");
}

/// Calls hand their connection to each other, but not past whoever else waits for the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_leaves_connections_to_others() {
    let file = File::new();
    let one = SqlitePoolOptions::new().max_connections(1);
    let pool = one.connect_with(file.options()).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (store, session) = (store.clone(), session.clone());
            tokio::spawn(async move {
                loop {
                    let touched = store.touch(session.id(), session.owner(), LONG).await;
                    assert!(touched.unwrap().is_some());
                }
            })
        })
        .collect();
    for _ in 0..5 {
        sleep(Duration::from_millis(20)).await;
        let connection = tokio::time::timeout(Duration::from_secs(5), pool.acquire());
        drop(connection.await.expect("it is not kept").unwrap());
    }
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled(), "none failed");
    }
}

/// A touch that finds the idle time left writes nothing, and waits for no writer.
#[tokio::test]
async fn a_touch_that_is_not_due_writes_nothing() {
    let file = File::new();
    let store = file.store().await;
    let one = SqlitePoolOptions::new().max_connections(1);
    let observer = one.connect_with(file.options()).await.unwrap();
    // It changes with every commit of another connection.
    let version = async |_: &Session| {
        let version = "pragma data_version";
        let version = sqlx::query_scalar::<_, i64>(version).fetch_one(&observer);
        version.await.unwrap().to_string()
    };
    sql::only_touches_that_are_due_are_written(&store, version).await;

    let session = session();
    store.create(&session, &terms()).await.unwrap();
    let (id, owner) = (session.id(), session.owner());
    store.touch(id, owner, LONG).await.unwrap();
    let other = pool(file.options()).await;
    let lock = other.begin_with("begin immediate").await.unwrap();
    let touched = tokio::time::timeout(Duration::from_secs(1), store.touch(id, owner, LONG));
    assert!(touched.await.expect("does not wait").unwrap().is_some());
    lock.rollback().await.unwrap();
}

/// A touch rewrites its row; the parameters must not be in it, and go when it goes.
#[tokio::test]
async fn parameters_are_kept_apart() {
    let file = File::new();
    let pool = pool(file.options()).await;
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let params = async || {
        let rows = "select count(*) from mcp_sessions_params";
        sqlx::query_scalar::<_, i64>(rows)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let (deleted, expired) = (full_session(), full_session());
    store.create(&deleted, &terms()).await.unwrap();
    store
        .create(&expired, &terms_of(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(params().await, 2);
    assert!(
        store
            .delete(deleted.id(), EndReason::Deleted)
            .await
            .unwrap()
    );
    assert_eq!(params().await, 1);
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(params().await, 0);
    // An id that is created again does not inherit.
    store
        .create(&expired, &terms_of(Duration::ZERO))
        .await
        .unwrap();
    let without = Session::new(expired.id().clone(), session().record());
    store.create(&without, &terms()).await.unwrap();
    let found = store.load(without.id()).await.unwrap().unwrap();
    assert_eq!(found.session.record(), without.record());
}

#[tokio::test]
async fn a_file_that_is_read_only_is_an_error() {
    let file = File::new();
    let live = session();
    file.store().await.create(&live, &terms()).await.unwrap();
    let store = SqliteStore::new(pool(file.options().read_only(true)).await);
    for session in [&live, &session()] {
        let (id, owner) = (session.id(), session.owner());
        let errors = [
            store.touch(id, owner, LONG).await.unwrap_err(),
            store.claim(id, owner, LONG).await.unwrap_err(),
            store.delete(id, EndReason::Deleted).await.unwrap_err(),
            store.create(&crate::session(), &terms()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), StoreErrorKind::Failed, "{error:?}");
        }
    }
    assert!(
        store.load(live.id()).await.unwrap().is_some(),
        "it can still be read"
    );
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_no_session_is_lost() {
    let file = File::new();
    file.store().await;
    let store = SqliteStore::new(pool(file.options().pragma("max_page_count", "40")).await);
    let (mut created, mut refused) = (Vec::new(), 0);
    // Connections that have seen the disk full are of use again later.
    while refused < 20 {
        let session = full_session();
        match store.create(&session, &terms()).await {
            Ok(_) => created.push(session),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                refused += 1;
            }
        }
        assert!(created.len() < 1000, "it never gets full");
    }
    assert!(!created.is_empty());
    for session in &created {
        let found = store
            .touch(session.id(), session.owner(), LONG)
            .await
            .unwrap();
        assert!(found.is_some());
    }
    // Whoever ends makes room.
    assert!(
        store
            .delete(created[0].id(), EndReason::Deleted)
            .await
            .unwrap()
    );
    store.create(&session(), &terms()).await.unwrap();
}

#[tokio::test]
async fn a_locked_file_is_away() {
    let file = File::new();
    let session = session();
    let live = file.store().await;
    live.create(&session, &terms()).await.unwrap();
    let options = file.options().busy_timeout(Duration::from_millis(50));
    let store = SqliteStore::new(pool(options).await);
    let other = pool(file.options()).await;
    let lock = other.begin_with("begin immediate").await.unwrap();
    let (id, owner) = (session.id(), session.owner());
    let errors = [
        store.touch(id, owner, LONG).await.unwrap_err(),
        store.delete(id, EndReason::Deleted).await.unwrap_err(),
        store.create(&session, &terms()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
    assert!(
        store.load(id).await.unwrap().is_some(),
        "a reader need not wait"
    );
    lock.rollback().await.unwrap();
    assert!(store.touch(id, owner, LONG).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_unreadable_is_corrupt_and_what_is_missing_has_failed() {
    let file = File::new();
    let pool = pool(file.options()).await;
    let store = SqliteStore::new(pool.clone());
    let error = store.load(session().id()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Failed, "{error:?}");
    store.migrate().await.unwrap();
    let session = full_session();
    store.create(&session, &terms()).await.unwrap();
    let damage = "update mcp_sessions set client_name = x'ff'";
    sqlx::raw_sql(damage).execute(&pool).await.unwrap();
    for error in [
        store.load(session.id()).await.unwrap_err(),
        store
            .touch(session.id(), session.owner(), LONG)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error:?}");
    }
}

#[tokio::test]
async fn clones_hear_each_others_ends_and_a_dropped_delete_is_heard() {
    let file = File::new();
    let store = file.store().await;
    let mut feed = store.clone().feed().unwrap();
    for polls in 1..20 {
        let session = session();
        store.create(&session, &terms()).await.unwrap();
        let mut delete = Box::pin(store.delete(session.id(), EndReason::InnerGone));
        for _ in 0..polls {
            if futures_util::poll!(&mut delete).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(delete);
        let heard = tokio::time::timeout(Duration::from_secs(10), feed.next()).await;
        let ended = FeedEvent::Ended {
            reference: *session.reference(),
            reason: EndReason::InnerGone,
        };
        assert_eq!(heard.expect("it is announced"), Some(ended));
    }
}

#[tokio::test]
async fn expired_rows_are_swept_in_batches_and_after_errors() {
    let file = File::new();
    let pool = pool(file.options()).await;
    let store = SqliteStore::new(pool.clone());
    let sweeper = tokio::spawn(store.clone().keep_swept(Duration::from_millis(20)));
    sleep(Duration::from_millis(100)).await;
    store.sweep().await.expect_err("there is no table");
    store.migrate().await.unwrap();
    let live = session();
    store.create(&live, &terms()).await.unwrap();
    store
        .create(&session(), &terms_of(Duration::ZERO))
        .await
        .unwrap();
    let rows = async || {
        let rows = "select count(*) from mcp_sessions";
        sqlx::query_scalar::<_, i64>(rows)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let swept = async {
        while rows().await > 1 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept)
        .await
        .expect("it is swept");
    sweeper.abort();
    _ = sweeper.await;

    let copies = "insert into mcp_sessions
        select randomblob(32), scope, principal, by_layer, client_name, client_version, protocol_version,
            created, latest_touch, used, 0, life_ends
        from mcp_sessions, (
            with recursive n(i) as (values (1) union all select i + 1 from n where i < 1500) select i from n
        );
        insert into mcp_sessions_revoked values (x'', 1, null, 0), (x'', 1, null, unixepoch() * 1000)";
    sqlx::raw_sql(copies).execute(&pool).await.unwrap();
    for expected in [1000, 500, 0] {
        assert_eq!(store.sweep().await.unwrap(), expected);
    }
    assert!(store.load(live.id()).await.unwrap().is_some());
    let marks = "select count(*) from mcp_sessions_revoked";
    let marks: i64 = sqlx::query_scalar(marks).fetch_one(&pool).await.unwrap();
    assert_eq!(marks, 1, "a mark is kept for an hour");
}

/// The clock shows milliseconds; what begins after the end of all is new all the same.
#[tokio::test]
async fn a_create_right_after_end_all_is_new() {
    let file = File::new();
    let store = file.store().await;
    let filter = SessionFilter::Owner(owner("a"));
    for _ in 0..50 {
        store.end_all(&filter, EndReason::Revoked).await.unwrap();
        let created = store.create(&session(), &terms()).await.unwrap();
        assert!(matches!(created, Created::New { .. }), "{created:?}");
    }
    let ended = store.end_all(&filter, EndReason::Revoked).await.unwrap();
    assert_eq!(ended, 1);
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
