//! Deletes, and ends through the directory.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_delete_goes_to_the_primary_first_and_counts_at_once() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    let asked = primary.touches();
    assert!(cached.delete(mine.id(), EndReason::Deleted).await.unwrap());
    assert!(matches!(now(&cached, &mine), Now::Absent));
    let stranger = cached.touch_now(mine.id(), &owner("you"), HOUR);
    assert!(matches!(stranger, Now::Absent));
    assert_eq!(primary.touches(), asked);
    assert!(!cached.delete(mine.id(), EndReason::Deleted).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn after_a_delete_that_failed_or_was_cancelled_memory_says_nothing() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.fail(StoreErrorKind::Failed);
    let failed = cached.delete(mine.id(), EndReason::Deleted).await;
    assert!(failed.is_err());
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
    // Sent, and perhaps done, but cancelled before the answer.
    primary.after.close();
    let deleted = cached.delete(mine.id(), EndReason::Deleted);
    assert!(deleted.now_or_never().is_none());
    primary.after.open();
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_directory_ends_is_forgotten_without_a_feed() {
    let (primary, cached) = cached_over(Primary {
        has_directory: true,
        ..Primary::default()
    });
    let all: [_; 3] = [owner("me"), owner("me"), owner("you")].map(|owner| session_of(&owner));
    for session in &all {
        primary.store.create(session, &terms()).await.unwrap();
        assert!(is_live(&cached, session).await);
    }
    let directory = cached.directory().unwrap();
    let all_sessions = SessionFilter::Scope(Scope::default());
    assert_eq!(directory.count(&all_sessions).await.unwrap(), 3);
    assert_eq!(
        directory.list(&all_sessions, None, 2).await.unwrap().len(),
        2
    );
    let scope = Scope::default();
    let ended = directory.end(&scope, all[0].reference(), EndReason::Revoked);
    assert!(ended.await.unwrap());
    assert!(!is_live(&cached, &all[0]).await);
    let me = SessionFilter::Owner(owner("me"));
    let ended = directory.end_all(&me, EndReason::Revoked).await.unwrap();
    assert_eq!(ended, 1);
    assert!(!is_live(&cached, &all[1]).await);
    assert!(matches!(now(&cached, &all[2]), Now::Live(_)));
}
