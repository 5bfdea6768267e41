//! In whatever order the primary's answers and newer word come in: what has ended is not remembered.

use futures_util::{FutureExt as _, StreamExt as _};
use shuttle::{future::block_on, thread};

use super::{
    tests::{HOUR, owner, session_of, terms},
    *,
};
use crate::{store::MemoryStore, sync::permute};

type Cached = Arc<CachedStore<MemoryStore>>;

/// A session in the primary, and a cache that has not heard of it.
fn cached(owner: &Owner) -> (MemoryStore, Cached, Session) {
    let primary = MemoryStore::new();
    let session = session_of(owner);
    block_on(primary.create(&session, &terms())).unwrap();
    let cached = CachedStore::new(primary.clone(), HOUR);
    (primary, Arc::new(cached), session)
}

/// As a request does.
fn touch(cached: &Cached, session: &Session, owner: &Owner) -> bool {
    match cached.touch_now(session.id(), owner, HOUR) {
        Now::Live(_) => true,
        Now::Absent => false,
        Now::Unknown => block_on(cached.touch(session.id(), owner, HOUR))
            .unwrap()
            .is_some(),
    }
}

fn touching(cached: &Cached, session: &Session) -> thread::JoinHandle<bool> {
    let (cached, session) = (Arc::clone(cached), session.clone());
    let owner = session.owner().clone();
    thread::spawn(move || touch(&cached, &session, &owner))
}

/// Takes in all that the feed has.
fn hear(feed: &mut Feed) {
    while let Some(Some(_)) = feed.next().now_or_never() {}
}

#[test]
fn a_session_that_was_deleted_here_is_not_remembered() {
    permute(|| {
        let owner = owner(Some("alice"));
        let (_, cached, session) = cached(&owner);
        let touching = [(); 2].map(|()| touching(&cached, &session));
        assert!(block_on(cached.delete(session.id(), EndReason::Deleted)).unwrap());
        assert!(!touch(&cached, &session, &owner), "its end was answered");
        for touching in touching {
            touching.join().unwrap();
        }
        assert!(!touch(&cached, &session, &owner), "it came back");
        assert_eq!(cached.cache.calls.len(), 0);
    });
}

#[test]
fn a_session_that_was_ended_elsewhere_is_not_remembered() {
    permute(|| {
        let owner = owner(Some("alice"));
        let (primary, cached, session) = cached(&owner);
        let mut feed = cached.feed().unwrap();
        let touching = [(); 2].map(|()| touching(&cached, &session));
        assert!(block_on(primary.delete(session.id(), EndReason::Deleted)).unwrap());
        hear(&mut feed);
        assert!(!touch(&cached, &session, &owner), "its end was heard");
        for touching in touching {
            touching.join().unwrap();
        }
        assert!(!touch(&cached, &session, &owner), "it came back");
    });
}

#[test]
fn a_session_that_was_claimed_is_not_remembered_as_anonymous() {
    permute(|| {
        let (_, cached, session) = cached(&owner(None));
        let touching = [(); 2].map(|()| touching(&cached, &session));
        let alice = owner(Some("alice"));
        let claimed = block_on(cached.claim(session.id(), &alice, HOUR));
        assert!(claimed.unwrap().is_some());
        for touching in touching {
            touching.join().unwrap();
        }
        assert!(!touch(&cached, &session, &owner(None)), "it is alice's");
        assert!(touch(&cached, &session, &alice));
    });
}

#[test]
fn touches_at_once_are_all_answered() {
    permute(|| {
        let (_, cached, session) = cached(&owner(Some("alice")));
        let touching = [(); 3].map(|()| touching(&cached, &session));
        for touching in touching {
            assert!(touching.join().unwrap());
        }
        assert_eq!(cached.cache.calls.len(), 0);
        assert_eq!(cached.cache.entries.len(), (1, 1, 0));
    });
}
