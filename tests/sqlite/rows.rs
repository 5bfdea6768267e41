//! The tables: how they are read, changed and swept, and what is heard of it.

use std::time::Duration;

use mcp_session_layer::{
    Session, SessionStore as _, SqliteStore,
    sqlx::{self, sqlite::SqlitePoolOptions},
    store::{Created, Directory as _, EndReason, FeedEvent, SessionFilter},
};
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

use crate::{
    File, full_session, pool,
    sql::{self, LONG, listen_to_the_log, logged, owner, session, terms, terms_of, unique},
};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_two_nodes_a_session_that_is_served_at_its_deadline_is_not_over() {
    let file = File::new();
    let nodes = [file.store().await, file.store().await];
    sql::deadline::a_session_that_is_served_is_not_over(nodes, Duration::from_secs(5)).await;
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
async fn clones_hear_each_others_ends_and_a_dropped_delete_is_heard() {
    let file = File::new();
    let store = file.store().await;
    let mut feed = store.clone().feed().unwrap();
    assert_eq!(feed.next().await, Some(FeedEvent::Gap), "before it listens");
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
