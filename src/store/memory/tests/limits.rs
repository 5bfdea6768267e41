//! Limits, however many sessions are created at once.

use std::{collections::HashSet, sync::Barrier, thread};

use super::*;
use crate::store::{
    Limit,
    memory::{candidates::Patience, evict::Among},
};

#[test]
fn limits_are_exact_however_many_come_at_once() {
    let mine = owner("me");
    let per_principal = Terms {
        per_principal: NonZeroU64::new(100),
        ..terms()
    };
    let cases = [(at_most(100), owner(None)), (per_principal, mine)];
    for (terms, owner) in cases {
        let store = MemoryStore::new();
        let barrier = Barrier::new(8);
        let together = || {
            barrier.wait();
            let tries = (0..100).map(|_| create(&store, &session_of(&owner), &terms));
            tries
                .filter(|created| matches!(created, Created::New { .. }))
                .count()
        };
        let new: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(together)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(new, 100);
        assert_eq!(count(&store, &in_scope()), 100);
    }
}

#[test]
fn when_many_come_at_once_each_has_exactly_one_ended_for_it() {
    let at_limit = AtLimit::Evict {
        unused: Duration::ZERO,
        untouched: Duration::ZERO,
    };
    let total = Terms {
        at_limit,
        ..at_most(100)
    };
    let both = Terms {
        per_principal: NonZeroU64::new(100),
        ..total.clone()
    };
    let per_principal = Terms {
        total: None,
        ..both.clone()
    };
    let cases = [
        (total, owner(None)),
        (both, owner("me")),
        (per_principal, owner("me")),
    ];
    for (terms, owner) in cases {
        let store = MemoryStore::new();
        for _ in 0..100 {
            create(&store, &session_of(&owner), &terms);
        }
        let barrier = Barrier::new(8);
        let together = || {
            barrier.wait();
            let mut evicted = Vec::new();
            for _ in 0..100 {
                match create(&store, &session_of(&owner), &terms) {
                    Created::New {
                        evicted: Some(one), ..
                    } => evicted.push(one),
                    other => panic!("{other:?}"),
                }
                assert!(count(&store, &in_scope()) <= 100);
            }
            evicted
        };
        let evicted: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(together)).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        let distinct: HashSet<_> = evicted.iter().collect();
        assert_eq!(distinct.len(), 800);
        assert_eq!(count(&store, &in_scope()), 100);
        assert_eq!(store.slots().0, 100);
        assert_eq!(count(&store, &SessionFilter::Owner(owner)), 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_lowered_is_kept_by_the_next_creation() {
    let total: fn(u64) -> Terms = evicting;
    let per_principal: fn(u64) -> Terms = |most| Terms {
        per_principal: NonZeroU64::new(most),
        total: None,
        ..evicting(most)
    };
    for (terms, me) in [(total, owner(None)), (per_principal, owner("me"))] {
        let store = MemoryStore::new();
        for _ in 0..10 {
            create(&store, &session_of(&me), &terms(10));
        }
        advance(MINUTE).await;
        let created = create(&store, &session_of(&me), &terms(5));
        assert!(matches!(created, Created::New { .. }));
        assert_eq!(count(&store, &in_scope()), 5);
        assert_eq!(count(&store, &SessionFilter::Owner(me)), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_new_session_does_not_take_is_free() {
    let store = MemoryStore::new();
    let mine: [_; 2] = [owner("me"), owner("me")].map(|owner| session_of(&owner));
    let scope = store.0.scopes.of(&Scope::default());
    let terms = Terms {
        per_principal: NonZeroU64::new(1),
        ..evicting(1)
    };
    create(&store, &mine[0], &terms);
    advance(MINUTE).await;
    let new_hash = store.0.hash(&mine[1]);
    let among = Among::Owner(mine[0].owner());
    let now = times::now();
    let patience = Patience::of(terms.at_limit).unwrap();
    let (_, place) = store
        .0
        .evict(&mine[0], among, &mine[1], new_hash, &terms, now, patience)
        .unwrap();
    // Held for the new session, and for no other.
    let full = create(&store, &session_of(&owner("me")), &terms);
    assert_eq!(full, Created::Full(Limit::PerPrincipal));
    let full = create(&store, &session(), &terms);
    assert_eq!(full, Created::Full(Limit::Total));
    store.0.give_back(place, &scope, &mine[1], new_hash);
    assert_eq!(create(&store, &mine[0], &terms), new(Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_takes_no_room() {
    let store = MemoryStore::new();
    let mine = owner("me");
    let terms = Terms {
        per_principal: NonZeroU64::new(2),
        ..at_most(3)
    };
    for round in 0..3 {
        assert_eq!(create(&store, &session_of(&mine), &terms), new(Some(2)));
        assert_eq!(create(&store, &session_of(&mine), &terms), new(Some(1)));
        let full = create(&store, &session_of(&mine), &terms);
        assert_eq!(full, Created::Full(Limit::PerPrincipal), "{round}");
        assert_eq!(create(&store, &session(), &terms), new(Some(0)));
        let full = create(&store, &session(), &terms);
        assert_eq!(full, Created::Full(Limit::Total), "{round}");
        advance(5 * MINUTE).await;
    }
}

#[test]
fn scopes_have_limits_of_their_own_and_ids_in_common() {
    let store = MemoryStore::new();
    let elsewhere = Owner {
        scope: Scope::new("elsewhere"),
        principal: None,
    };
    let mine = new_session(&store, &at_most(1));
    let theirs = session_of(&elsewhere);
    assert_eq!(create(&store, &theirs, &at_most(1)), new(Some(0)));
    let same_id = Session::new(
        mine.id().clone(),
        SessionRecord::new(elsewhere, Issuer::Layer),
    );
    assert_eq!(create(&store, &same_id, &terms()), Created::Exists);
    assert_eq!(
        create(&store, &session(), &at_most(1)),
        Created::Full(Limit::Total)
    );
}
