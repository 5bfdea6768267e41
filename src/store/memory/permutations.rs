//! In whatever order threads come to it: what is one step to a caller is one step.

use std::num::NonZeroU64;

use shuttle::{future::block_on, thread};

use super::{
    tests::{HOUR, owner, session_of, terms},
    *,
};
use crate::{
    session::Scope,
    store::{AtLimit, SessionFilter},
    sync::permute,
};

/// One session at the most, in all and of each principal.
fn one(at_limit: AtLimit) -> Terms {
    Terms {
        total: NonZeroU64::new(1),
        per_principal: NonZeroU64::new(1),
        at_limit,
        ..terms()
    }
}

fn create(store: &MemoryStore, session: &Session, terms: &Terms) -> Created {
    block_on(store.create(session, terms)).unwrap()
}

fn is_new(created: &Created) -> bool {
    matches!(created, Created::New { .. })
}

fn count(store: &MemoryStore, filter: &SessionFilter) -> u64 {
    block_on(store.directory().unwrap().count(filter)).unwrap()
}

/// That the numbers that limits go by are those of the sessions that are there.
fn assert_counts(store: &MemoryStore, owner: &Owner) {
    let all = SessionFilter::Scope(owner.scope.clone());
    let there = count(store, &all);
    assert_eq!(store.0.scopes.of(&owner.scope).sessions(), there);
    if let Some(owned) = store.0.owners.lock(owner) {
        assert_eq!(owned.count(), there);
    }
}

#[test]
fn of_two_creations_at_a_limit_of_one_one_comes_in() {
    permute(|| {
        let store = MemoryStore::new();
        let threads = [None, Some("alice")].map(|principal| {
            let (store, session) = (store.clone(), session_of(&owner(principal)));
            thread::spawn(move || is_new(&create(&store, &session, &one(AtLimit::Refuse))))
        });
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        assert!(one != other, "one of the two");
        assert_eq!(count(&store, &SessionFilter::Scope(Scope::default())), 1);
    });
}

#[test]
fn creations_that_evict_leave_as_many_as_there_may_be() {
    permute(|| {
        let zero = Duration::ZERO;
        let evicts = one(AtLimit::Evict {
            unused: zero,
            untouched: zero,
        });
        for caller in [owner(None), owner(Some("alice"))] {
            let store = MemoryStore::new();
            assert!(is_new(&create(&store, &session_of(&caller), &evicts)));
            let threads = [(); 2].map(|()| {
                let (store, session, terms) = (store.clone(), session_of(&caller), evicts.clone());
                thread::spawn(move || create(&store, &session, &terms))
            });
            for thread in threads {
                thread.join().unwrap();
            }
            assert_counts(&store, &caller);
            assert_eq!(count(&store, &SessionFilter::Scope(Scope::default())), 1);
        }
    });
}

#[test]
fn a_session_ends_once_and_is_absent_from_then_on() {
    permute(|| {
        let store = MemoryStore::new();
        let session = session_of(&owner(Some("alice")));
        create(&store, &session, &terms());
        let touching = {
            let (store, session) = (store.clone(), session.clone());
            thread::spawn(move || {
                store.touch_now(session.id(), session.owner(), HOUR);
            })
        };
        let ending = [(); 2].map(|()| {
            let (store, session) = (store.clone(), session.clone());
            thread::spawn(move || {
                let ended = block_on(store.delete(session.id(), EndReason::Deleted)).unwrap();
                let now = store.touch_now(session.id(), session.owner(), HOUR);
                assert!(matches!(now, Now::Absent));
                ended
            })
        });
        touching.join().unwrap();
        let [one, other] = ending.map(|thread| thread.join().unwrap());
        assert!(one != other, "one of the two");
        assert_counts(&store, session.owner());
    });
}

#[test]
fn of_two_logins_one_claims_a_session() {
    permute(|| {
        let store = MemoryStore::new();
        let session = session_of(&owner(None));
        create(&store, &session, &terms());
        let claiming = ["alice", "bob"].map(|name| {
            let (store, session) = (store.clone(), session.clone());
            thread::spawn(move || {
                let owner = owner(Some(name));
                let claimed = block_on(store.claim(session.id(), &owner, HOUR)).unwrap();
                let is_live = store.touch_now(session.id(), &owner, HOUR);
                assert_eq!(claimed.is_some(), matches!(is_live, Now::Live(_)));
                claimed.is_some()
            })
        });
        let ending = {
            let store = store.clone();
            thread::spawn(move || {
                // Anonymous ones, of which this is one or was.
                let filter = SessionFilter::Owner(owner(None));
                let directory = store.directory().unwrap();
                block_on(directory.end_all(&filter, EndReason::Revoked)).unwrap()
            })
        };
        let claimed = claiming.map(|thread| thread.join().unwrap());
        let ended = ending.join().unwrap();
        let there = count(&store, &SessionFilter::Scope(Scope::default()));
        assert_eq!(there + ended, 1, "it is there or was ended");
        assert!(claimed != [true, true], "one at the most");
        assert_eq!(there, u64::from(claimed.contains(&true)));
    });
}

#[test]
fn a_creation_that_began_before_its_owner_s_end_leaves_no_session() {
    permute(|| {
        let store = MemoryStore::new();
        let session = session_of(&owner(Some("alice")));
        let before = Terms {
            started_ago: HOUR,
            ..terms()
        };
        let creating = {
            let (store, session) = (store.clone(), session.clone());
            thread::spawn(move || is_new(&create(&store, &session, &before)))
        };
        let filter = SessionFilter::Owner(session.owner().clone());
        let ended = block_on(
            store
                .directory()
                .unwrap()
                .end_all(&filter, EndReason::Revoked),
        );
        let created = creating.join().unwrap();
        assert_eq!(ended.unwrap(), u64::from(created), "ended, or not let in");
        let now = store.touch_now(session.id(), session.owner(), HOUR);
        assert!(matches!(now, Now::Absent));
        assert_counts(&store, session.owner());
    });
}
