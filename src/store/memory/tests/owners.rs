//! Claims, and revocations against creations in flight.

use std::{sync::Barrier, thread};

use super::*;
use crate::store::Limit;

#[tokio::test(start_paused = true)]
async fn an_anonymous_session_can_be_claimed_once() {
    let store = MemoryStore::new();
    let (me, you) = (owner("me"), owner("you"));
    let anonymous = new_session(&store, &terms());
    let local = anonymous.local::<std::sync::Mutex<u8>>();
    let elsewhere = Owner {
        scope: Scope::new("elsewhere"),
        ..me.clone()
    };
    let claim = |owner: &Owner| wait(store.claim(anonymous.id(), owner, HOUR)).unwrap();
    assert!(claim(&elsewhere).is_none());
    let claimed = claim(&me).unwrap();
    assert_eq!(claimed.session.owner(), &me);
    assert_eq!(claimed.idle_left, HOUR);
    assert!(Arc::ptr_eq(&claimed.session.local(), &local));
    assert!(claim(&me).is_some());
    assert!(claim(&you).is_none());
    assert!(claim(&owner(None)).is_none());
    assert!(matches!(
        store.touch_now(anonymous.id(), &owner(None), HOUR),
        Now::Absent
    ));
    assert!(touch(&store, &claimed.session).is_some());
    let limited = Terms {
        per_principal: NonZeroU64::new(1),
        ..terms()
    };
    let full = create(&store, &session_of(&me), &limited);
    assert_eq!(full, Created::Full(Limit::PerPrincipal));
    assert!(delete(&store, &anonymous));
    assert_eq!(create(&store, &session_of(&me), &limited), new(None));
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_began_before_its_owners_sessions_were_revoked_is_refused() {
    let store = MemoryStore::new();
    let begun = |begun| Terms {
        started_ago: begun,
        ..terms()
    };
    let me = SessionFilter::Owner(owner("me"));
    advance(SECOND).await;
    store.end_all(&me, EndReason::Revoked).await.unwrap();
    advance(10 * MINUTE).await;
    let of = |principal: &'static str| session_of(&owner(principal));
    let before = begun(10 * MINUTE + TICK);
    assert_eq!(create(&store, &of("me"), &before), Created::Revoked);
    assert_eq!(create(&store, &of("you"), &before), new(None));
    assert_eq!(create(&store, &of("me"), &begun(10 * MINUTE)), new(None));
    let just_then = begun(10 * MINUTE);
    // However many are ended after it.
    for nth in 0..5_000 {
        if nth == 10 {
            assert_eq!(create(&store, &of("me"), &just_then), new(None));
        }
        let other = SessionFilter::Owner(owner("other"));
        store.end_all(&other, EndReason::Revoked).await.unwrap();
    }
    assert_eq!(create(&store, &of("me"), &before), Created::Revoked);
    assert_eq!(create(&store, &of("me"), &terms()), new(None));
    advance(SECOND).await;
    store
        .end_all(&in_scope(), EndReason::Revoked)
        .await
        .unwrap();
    let created = create(&store, &session(), &begun(TICK));
    assert_eq!(created, Created::Revoked);
}

#[test]
fn no_creation_slips_through_while_its_owners_sessions_are_revoked() {
    let cases = [
        (owner("me"), SessionFilter::Owner(owner("me"))),
        (owner(None), SessionFilter::Owner(owner(None))),
        (owner("me"), in_scope()),
    ];
    for (owner, filter) in cases {
        let store = MemoryStore::new();
        for _ in 0..500 {
            let mine: [_; 4] = std::array::from_fn(|_| session_of(&owner));
            let barrier = Barrier::new(mine.len() + 1);
            let began = times::now();
            thread::scope(|scope| {
                for session in &mine {
                    scope.spawn(|| {
                        barrier.wait();
                        // One reading of the clock, as if no time passed between the caller's and the store's.
                        let now = times::now();
                        let begun = Duration::from_nanos(now - began);
                        let terms = Terms {
                            started_ago: begun,
                            ..terms()
                        };
                        wait(store.0.create(session, &terms, Purpose::Insert, now));
                    });
                }
                barrier.wait();
                wait(store.end_all(&filter, EndReason::Revoked)).unwrap();
            });
            assert_eq!(count(&store, &filter), 0);
        }
        assert_eq!(store.slots().0, 0);
    }
}
