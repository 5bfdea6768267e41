//! The file: how it is made, opened and found again.

use std::time::Duration;

use mcp_session_layer::{
    SessionStore as _, SqliteStore, sqlx,
    store::{EndReason, FeedEvent, StoreErrorKind},
};
use tokio_stream::StreamExt as _;

use crate::{
    File, full_session, pool,
    sql::{LONG, session, terms},
};

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
    let second = SqliteStore::open(&path).await.unwrap();
    let mut feeds = [first.feed().unwrap(), second.feed().unwrap()];
    for feed in &mut feeds {
        assert_eq!(feed.next().await, Some(FeedEvent::Gap), "before it listens");
    }
    assert!(first.delete(ended.id(), EndReason::Deleted).await.unwrap());
    let heard = FeedEvent::Ended {
        reference: *ended.reference(),
        reason: EndReason::Deleted,
    };
    for feed in &mut feeds {
        assert_eq!(feed.next().await, Some(heard));
    }

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
        for shipped in [
            include_str!("../../migrations/sqlite/0001_sessions.sql"),
            include_str!("../../migrations/sqlite/0002_values.sql"),
            include_str!("../../migrations/sqlite/0003_ends.sql"),
        ] {
            sqlx::raw_sql(shipped).execute(&pool).await.unwrap();
        }
    }
    let store = SqliteStore::new(pool);
    let session = session();
    store.create(&session, &terms()).await.unwrap();
    assert!(store.load(session.id()).await.unwrap().is_some());
}
