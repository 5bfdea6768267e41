//! What is served while the primary is away.

use super::*;

#[tokio::test(start_paused = true)]
async fn while_the_primary_is_away_what_was_live_a_minute_ago_is_served() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    let short = Terms {
        life: Some(50 * SECOND),
        ..terms()
    };
    let short = created_elsewhere(&primary, &short).await;
    let unknown = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    assert!(is_live(&cached, &short).await);
    primary.fail(StoreErrorKind::Unavailable);
    advance(STALENESS).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 1);
    assert!(is_live(&cached, &short).await);
    let error = request(&cached, &unknown).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let stranger = cached.touch(mine.id(), &owner("you"), HOUR).await;
    assert!(stranger.is_err());
    advance(20 * SECOND).await;
    assert!(is_live(&cached, &mine).await);
    // Its own time is up.
    assert!(request(&cached, &short).await.is_err());
    advance(10 * SECOND - TICK).await;
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 4);
    advance(TICK).await;
    assert!(request(&cached, &mine).await.is_err());
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
    assert_eq!(cached.stale_served(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_other_failure_is_covered_up() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    for kind in [StoreErrorKind::Failed, StoreErrorKind::Corrupt] {
        primary.fail(kind);
        let error = request(&cached, &mine).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    assert_eq!(cached.stale_served(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_an_outage_bound_nothing_stale_is_served() {
    let primary = Arc::new(Primary::default());
    let cached = CachedStore::new(Arc::clone(&primary), STALENESS).with_max_outage(Duration::ZERO);
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    primary.fail(StoreErrorKind::Unavailable);
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    assert!(request(&cached, &mine).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_says_nothing_is_away_and_asked_again_after_a_second() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    primary.before.close();
    let start = Instant::now();
    assert!(is_live(&cached, &mine).await);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!((primary.touches(), cached.stale_served()), (2, 1));
    // It is known to be away, so no request waits for it.
    assert!(is_live(&cached, &mine).await);
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!((primary.touches(), cached.stale_served()), (2, 2));
    advance(SECOND).await;
    primary.before.open();
    assert!(is_live(&cached, &mine).await);
    assert_eq!((primary.touches(), cached.stale_served()), (3, 2));
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_served_instead_a_slow_primary_is_waited_for() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let slow = request_later(&cached, &mine);
    settle().await;
    advance(2 * SECOND).await;
    settle().await;
    primary.before.open();
    assert!(slow.await.unwrap().unwrap());
}
