//! Changes of the owner, and loads.

use futures_util::FutureExt as _;

use super::*;
use crate::store::MemoryStore;

#[tokio::test(start_paused = true)]
async fn a_load_is_always_asked_and_believed() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    assert!(cached.load(mine.id()).await.unwrap().is_some());
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
    primary.end_elsewhere(&mine).await;
    assert!(cached.load(mine.id()).await.unwrap().is_none());
    assert_eq!(primary.loads.load(Relaxed), 2);
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(StoreErrorKind::Unavailable);
    assert!(cached.load(mine.id()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_claim_replaces_what_is_remembered() {
    let (primary, cached) = cached();
    let anonymous = session_of(&owner(None));
    primary.store.create(&anonymous, &terms()).await.unwrap();
    let me = owner("me");
    assert!(is_anonymous(&cached, &anonymous).await);
    let mine = cached.touch(anonymous.id(), &me, HOUR).await.unwrap();
    assert!(mine.is_none());
    advance(SECOND / 2).await;
    let claimed = cached.claim(anonymous.id(), &me, HOUR).await.unwrap();
    assert_eq!(claimed.unwrap().session.owner(), &me);
    let mine = cached.touch_now(anonymous.id(), &me, HOUR);
    assert!(matches!(mine, Now::Live(_)));
    assert!(matches!(
        cached.touch_now(anonymous.id(), &owner(None), HOUR),
        Now::Unknown
    ));
    assert!(!is_anonymous(&cached, &anonymous).await);
    let left = primary.store.load(anonymous.id()).await.unwrap().unwrap();
    assert_eq!(left.idle_left, HOUR + STALENESS);

    // Claimed on another node: a load shows it.
    let other = session_of(&owner(None));
    primary.store.create(&other, &terms()).await.unwrap();
    assert!(is_anonymous(&cached, &other).await);
    primary.store.claim(other.id(), &me, HOUR).await.unwrap();
    assert!(matches!(
        cached.touch_now(other.id(), &owner(None), HOUR),
        Now::Live(_)
    ));
    cached.load(other.id()).await.unwrap();
    assert!(matches!(
        cached.touch_now(other.id(), &owner(None), HOUR),
        Now::Unknown
    ));
}

#[tokio::test(start_paused = true)]
async fn after_a_claim_that_did_not_succeed_memory_says_nothing() {
    let (primary, cached) = cached();
    let anonymous = session_of(&owner(None));
    primary.store.create(&anonymous, &terms()).await.unwrap();
    let (me, you) = (owner("me"), owner("you"));
    assert!(is_anonymous(&cached, &anonymous).await);
    primary.fail(StoreErrorKind::Failed);
    assert!(cached.claim(anonymous.id(), &me, HOUR).await.is_err());
    assert!(matches!(
        cached.touch_now(anonymous.id(), &owner(None), HOUR),
        Now::Unknown
    ));
    primary.fail(None);
    assert!(is_anonymous(&cached, &anonymous).await);
    // Sent, and done, but cancelled before the answer.
    primary.after.close();
    let claim = cached.claim(anonymous.id(), &me, HOUR);
    assert!(claim.now_or_never().is_none());
    primary.after.open();
    assert!(matches!(
        cached.touch_now(anonymous.id(), &owner(None), HOUR),
        Now::Unknown
    ));

    // Too late: a claim on another node was faster.
    let other = session_of(&owner(None));
    primary.store.create(&other, &terms()).await.unwrap();
    assert!(is_anonymous(&cached, &other).await);
    primary.store.claim(other.id(), &you, HOUR).await.unwrap();
    let claimed = cached.claim(other.id(), &me, HOUR).await.unwrap();
    assert!(claimed.is_none());
    assert!(!is_anonymous(&cached, &other).await);
}

#[tokio::test(start_paused = true)]
async fn a_claim_heard_on_the_feed_counts_at_once() {
    let store = MemoryStore::new();
    let cached = Arc::new(CachedStore::new(store.clone(), STALENESS));
    let anonymous = session_of(&owner(None));
    store.create(&anonymous, &terms()).await.unwrap();
    let touched = cached.touch(anonymous.id(), &owner(None), HOUR).await;
    assert!(touched.unwrap().is_some());
    settle().await;
    store
        .claim(anonymous.id(), &owner("me"), HOUR)
        .await
        .unwrap();
    settle().await;
    assert!(matches!(
        cached.touch_now(anonymous.id(), &owner(None), HOUR),
        Now::Unknown
    ));
    let touched = cached.touch(anonymous.id(), &owner(None), HOUR).await;
    assert!(touched.unwrap().is_none());
}
