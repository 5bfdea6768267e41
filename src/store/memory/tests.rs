use std::{
    num::NonZeroU64,
    pin::pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use tokio::time::advance;

use super::*;
use crate::{
    session::{Issuer, Principal, Scope, SessionRecord},
    store::{AtLimit, SessionFilter},
};

mod directory;
mod evict;
mod feed;
mod lifetimes;
mod limits;
mod owners;
mod sweep;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

pub(super) fn owner(principal: impl Into<Option<&'static str>>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.into().map(Principal::new),
    }
}

pub(super) fn session_of(owner: &Owner) -> Session {
    Session::new(
        SessionId::issue(),
        SessionRecord::new(owner.clone(), Issuer::Layer),
    )
}

fn session() -> Session {
    session_of(&owner(None))
}

pub(super) fn terms() -> Terms {
    Terms {
        idle: HOUR,
        initial_idle: 5 * MINUTE,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

fn at_most(total: u64) -> Terms {
    Terms {
        total: NonZeroU64::new(total),
        ..terms()
    }
}

fn evicting(total: u64) -> Terms {
    Terms {
        at_limit: AtLimit::Evict {
            unused: 5 * SECOND,
            untouched: MINUTE,
        },
        ..at_most(total)
    }
}

fn new(left: Option<u64>) -> Created {
    let evicted = None;
    Created::New { left, evicted }
}

/// Polls without a runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

fn create(store: &MemoryStore, session: &Session, terms: &Terms) -> Created {
    wait(store.create(session, terms)).unwrap()
}

fn new_session(store: &MemoryStore, terms: &Terms) -> Session {
    let session = session();
    let created = create(store, &session, terms);
    assert!(matches!(created, Created::New { .. }), "{created:?}");
    session
}

fn touch(store: &MemoryStore, session: &Session) -> Option<Found> {
    match store.touch_now(session.id(), session.owner(), HOUR) {
        Now::Live(found) => Some(found),
        Now::Absent => None,
        Now::Unknown => panic!("memory knows"),
    }
}

fn delete(store: &MemoryStore, session: &Session) -> bool {
    wait(store.delete(session.id(), EndReason::Deleted)).unwrap()
}

fn is_live(store: &MemoryStore, session: &Session) -> bool {
    wait(store.load(session.id())).unwrap().is_some()
}

fn count(store: &MemoryStore, filter: &SessionFilter) -> u64 {
    wait(store.count(filter)).unwrap()
}

fn in_scope() -> SessionFilter {
    SessionFilter::Scope(Scope::default())
}

impl MemoryStore {
    /// Sessions in the table, expired ones included, and the room for them.
    fn slots(&self) -> (usize, usize) {
        let tables = self.0.shards.iter().map(|shard| {
            let sessions = shard.read();
            (sessions.iter().count(), sessions.slots())
        });
        tables.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn is_unlocked(&self) -> bool {
        self.0.shards.iter().all(Shard::is_unlocked) && self.0.owners.is_unlocked()
    }
}

#[test]
fn it_works_without_a_runtime() {
    let store = MemoryStore::new();
    let mine = new_session(&store, &at_most(5));
    let found = touch(&store, &mine).unwrap();
    assert!(found.idle_left > 5 * MINUTE);
    assert_eq!(create(&store, &mine, &terms()), Created::Exists);
    wait(store.sweep());
    assert_eq!(count(&store, &in_scope()), 1);
    assert!(delete(&store, &mine));
    assert!(touch(&store, &mine).is_none());
}

#[tokio::test(start_paused = true)]
async fn sessions_are_dropped_outside_the_locks() {
    /// Looks, when it is dropped, whether anything is locked.
    #[derive(Default)]
    struct Probe(OnceLock<(MemoryStore, Arc<AtomicBool>)>);

    impl Drop for Probe {
        fn drop(&mut self) {
            let (store, unlocked) = self.0.get().unwrap();
            unlocked.store(store.is_unlocked(), Relaxed);
        }
    }

    let store = MemoryStore::new();
    let probed = |terms: &Terms| {
        let session = session_of(&owner("me"));
        let unlocked = Arc::new(AtomicBool::new(false));
        let probe = session.local::<Probe>();
        let _ = probe.0.set((store.clone(), Arc::clone(&unlocked)));
        create(&store, &session, terms);
        (session.id().clone(), unlocked)
    };

    let (id, deleted) = probed(&terms());
    store.delete(&id, EndReason::Deleted).await.unwrap();
    assert!(deleted.load(Relaxed), "delete");

    let own = Terms {
        per_principal: NonZeroU64::new(1),
        ..evicting(1)
    };
    let (_, evicted) = probed(&own);
    advance(5 * SECOND).await;
    let latest = session_of(&owner("me"));
    create(&store, &latest, &own);
    assert!(evicted.load(Relaxed), "evict");

    let (_, swept) = probed(&terms());
    advance(5 * MINUTE).await;
    store.sweep().await;
    assert!(swept.load(Relaxed), "sweep");

    let (id, replaced) = probed(&terms());
    advance(5 * MINUTE).await;
    let again = Session::new(id, SessionRecord::new(owner("me"), Issuer::Layer));
    wait(store.create(&again, &terms())).unwrap();
    assert!(replaced.load(Relaxed), "create");

    let (_, ended) = probed(&terms());
    store
        .end_all(&in_scope(), EndReason::Revoked)
        .await
        .unwrap();
    assert!(ended.load(Relaxed), "end_all");
}

#[test]
fn debug_shows_no_session() {
    let store = MemoryStore::new();
    new_session(&store, &terms());
    assert_eq!(format!("{store:?}"), "MemoryStore { .. }");
}

#[test]
fn shard_and_table_use_different_bits_of_a_hash() {
    let tag = 0x7f << 57;
    let buckets = (1 << 40) - 1;
    assert_eq!(shard_of(tag | buckets, SHARDS), 0);
    assert_eq!(shard_of(!(tag | buckets), SHARDS), SHARDS - 1);
}
