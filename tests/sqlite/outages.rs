//! Files that cannot be written or read.

use std::time::Duration;

use mcp_session_layer::{
    SessionStore as _, SqliteStore, sqlx,
    store::{EndReason, StoreErrorKind},
};

use crate::{
    File, full_session, pool,
    sql::{self, LONG, session, terms},
};

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
            store.create(&sql::session(), &terms()).await.unwrap_err(),
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
