//! What is answered from memory, and for how long.

use std::num::NonZeroU64;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hit_asks_no_one_until_the_answer_is_as_old_as_it_may_be() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS - TICK).await;
    let Now::Live(found) = now(&cached, &mine) else {
        panic!("a hit");
    };
    assert_eq!(found.age, STALENESS - TICK);
    assert_eq!(found.idle_left, HOUR + TICK);
    // The keeper, which asks with a future, is answered from memory too.
    let found = cached.touch(mine.id(), mine.owner(), HOUR).await.unwrap();
    assert!(found.is_some());
    assert_eq!(primary.touches(), 1);
    advance(TICK).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(is_live(&cached, &mine).await);
    assert_eq!(primary.touches(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_staleness_means_that_every_touch_is_asked() {
    let primary = Arc::new(Primary::default());
    let cached = Arc::new(CachedStore::new(Arc::clone(&primary), Duration::ZERO));
    let mine = created_elsewhere(&primary, &terms()).await;
    let absent = session();
    for nth in 1..4 {
        assert!(is_live(&cached, &mine).await);
        assert!(!is_live(&cached, &absent).await);
        assert_eq!(primary.touches(), 2 * nth);
    }
    // Nor does a request take an answer to a touch that was sent before its own.
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    assert_eq!(primary.touches(), 8);
    primary.before.open();
    for one in both {
        assert!(one.await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn no_idle_time_gets_shorter_and_the_primary_is_touched_once_an_interval() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    // A request every seven seconds: five in each interval.
    for _ in 0..200 {
        assert!(is_live(&cached, &mine).await);
        let left = primary.store.load(mine.id()).await.unwrap().unwrap();
        assert!(left.idle_left >= HOUR, "{left:?}");
        advance(7 * SECOND).await;
    }
    assert_eq!(primary.touches(), 40);
    assert_eq!(*primary.last_idle.lock(), HOUR + STALENESS);
    // The last request is seven seconds old.
    advance(HOUR - 7 * SECOND - TICK).await;
    assert!(primary.store.load(mine.id()).await.unwrap().is_some());
    advance(STALENESS + TICK).await;
    assert!(primary.store.load(mine.id()).await.unwrap().is_none());
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_touch_for_longer_than_the_last_one_is_asked() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    assert!(is_live(&cached, &mine).await);
    let longer = cached.touch_now(mine.id(), mine.owner(), 2 * HOUR);
    assert!(matches!(longer, Now::Unknown));
    let found = cached.touch(mine.id(), mine.owner(), 2 * HOUR).await;
    assert_eq!(found.unwrap().unwrap().idle_left, 2 * HOUR + STALENESS);
    let longer = cached.touch_now(mine.id(), mine.owner(), 2 * HOUR);
    assert!(matches!(longer, Now::Live(_)));
    let shorter = cached.touch_now(mine.id(), mine.owner(), SECOND);
    assert!(matches!(shorter, Now::Live(_)));
}

#[tokio::test(start_paused = true)]
async fn every_entry_has_an_end_of_its_own() {
    let (primary, cached) = cached();
    let life = Some(MINUTE);
    let mine = created_elsewhere(&primary, &Terms { life, ..terms() }).await;
    advance(MINUTE - STALENESS / 2).await;
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS / 2 - TICK).await;
    let Now::Live(found) = now(&cached, &mine) else {
        panic!("a hit");
    };
    assert_eq!((found.idle_left, found.life_left), (TICK, Some(TICK)));
    assert_eq!(primary.touches(), 1);
    advance(TICK).await;
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    assert!(!is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_remembered_and_its_first_touch_is_asked() {
    let (primary, cached) = cached();
    let mine = session();
    let terms = Terms {
        initial_idle: HOUR,
        ..terms()
    };
    cached.create(&mine, &terms).await.unwrap();
    assert!(matches!(now(&cached, &mine), Now::Unknown));
    primary.fail(StoreErrorKind::Unavailable);
    assert!(is_live(&cached, &mine).await);
    // What was not created is not remembered.
    let other = session();
    let failed = cached.create(&other, &terms).await;
    assert!(failed.is_err());
    primary.fail(None);
    primary.store.create(&other, &terms).await.unwrap();
    let exists = cached.create(&other, &terms).await.unwrap();
    assert_eq!(exists, Created::Exists);
    primary.fail(StoreErrorKind::Unavailable);
    assert!(request(&cached, &other).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_does_not_look_untouched_to_the_primary() {
    let (primary, cached) = cached();
    let terms = Terms {
        total: NonZeroU64::new(1),
        at_limit: AtLimit::Evict {
            unused: SECOND,
            untouched: MINUTE,
        },
        ..terms()
    };
    let mine = session();
    cached.create(&mine, &terms).await.unwrap();
    assert!(is_live(&cached, &mine).await);
    let told = primary.last_terms.lock().clone().unwrap();
    let (unused, untouched) = (SECOND + STALENESS, MINUTE + STALENESS);
    assert_eq!(told.at_limit, AtLimit::Evict { unused, untouched });
}

#[tokio::test(start_paused = true)]
async fn what_is_evicted_for_a_new_session_is_forgotten() {
    let (_, cached) = cached();
    let terms = Terms {
        total: NonZeroU64::new(1),
        at_limit: AtLimit::Evict {
            unused: Duration::ZERO,
            untouched: Duration::ZERO,
        },
        ..terms()
    };
    let mine = session_of(&owner(None));
    cached.create(&mine, &terms).await.unwrap();
    assert!(is_live(&cached, &mine).await);
    advance(STALENESS).await;
    let evicted = Some(*mine.reference());
    let left = Some(0);
    let newcomer = session_of(&owner(None));
    let created = cached.create(&newcomer, &terms).await.unwrap();
    assert_eq!(created, Created::New { left, evicted });
    assert_eq!(cached.cache.entries.len().0, 1, "one came, one went");
}
