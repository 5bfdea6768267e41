//! The contract of stores, run against [`CachedStore`], and what only shows on threads.

#![cfg(feature = "conformance")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcp_session_layer::{
    BoxSessionStore, CachedStore, MemoryStore, Owner, Session, SessionId, SessionStore,
    conformance,
    store::{Created, EndReason, Found, Now, StoreError, Terms},
};
use tokio::{task::yield_now, time::sleep};

use support::{
    contract::keeps_everything,
    sessions::{fresh_session, insert, terms},
    time::{HOUR, SECOND},
};

mod support;

fn cached(max_staleness: Duration) -> CachedStore<MemoryStore> {
    CachedStore::new(MemoryStore::new(), max_staleness)
}

/// Under a clock that only the suite moves, an idle time must not be longer by anything, so that nothing may be remembered.
#[tokio::test(start_paused = true)]
async fn keeps_the_contract() {
    keeps_everything(&Arc::new(cached(Duration::ZERO))).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_it_boxed() {
    keeps_everything(&BoxSessionStore::new(cached(Duration::ZERO))).await;
}

/// The suite allows a real clock a few milliseconds: so long an answer may be remembered here.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_it_on_threads_and_a_real_clock() {
    keeps_everything(&Arc::new(cached(Duration::from_millis(4)))).await;
}

/// Every rule but those about the instant at which an idle time ends, and how long a session in use may look untouched:
/// these are put off by what the memory is allowed.
#[tokio::test(start_paused = true)]
async fn keeps_all_other_rules_with_a_long_memory() {
    let put_off = [
        "a_touch_extends",
        "every_touch_leaves_the_idle_time",
        "every_touch_keeps_from_eviction",
        "load_does_not_extend",
        "expired_is_absent_for_every_verb",
        "times_are_true",
        "touch_now_agrees_with_touch",
        "a_strangers_touch_changes_nothing",
        "a_claim_extends_as_a_touch_does",
        "the_absent_do_not_count",
        "the_longest_untouched_is_evicted",
        "an_unused_session_is_evicted_first",
        "the_oldest_unused_is_evicted",
        "the_unused_have_a_time_of_their_own",
        "no_principal_goes_for_another",
        "room_is_made_as_for_a_create",
        "a_principal_evicts_its_own",
        "the_expired_are_not_listed",
        "every_end_is_heard",
        "expire_ends_what_is_over_and_nothing_else",
        "a_change_extends_nothing",
    ];
    for case in put_off {
        assert!(conformance::CASES.contains(&case), "no such case: {case}");
    }
    let store = Arc::new(cached(HOUR));
    for case in conformance::CASES {
        if !put_off.contains(case) {
            conformance::one(case, &store, sleep).await;
        }
    }
}

/// A store to and from which calls take a while, now longer and now shorter, so that others come in between.
struct Distant(MemoryStore);

impl Distant {
    async fn travel(&self) {
        static TRIPS: AtomicUsize = AtomicUsize::new(0);
        for _ in 0..TRIPS.fetch_add(1, SeqCst) % 7 {
            yield_now().await;
        }
    }
}

impl SessionStore for Distant {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.0.create(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.0.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.travel().await;
        let found = self.0.touch(id, owner, idle).await;
        self.travel().await;
        found
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        // Home at once: so touches from before it are still on their way.
        self.travel().await;
        self.0.delete(id, reason).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_after_a_delete_is_let_in_whatever_was_under_way() {
    // What is remembered wrongly is remembered long enough to be seen.
    let store = Arc::new(CachedStore::new(Distant(MemoryStore::new()), HOUR));
    for _ in 0..1000 {
        let mine = fresh_session();
        insert(&store, &mine, &terms()).await;
        let deleted = Arc::new(AtomicBool::new(false));
        let requests: Vec<_> = (0..8)
            .map(|_| {
                let (store, mine) = (Arc::clone(&store), mine.clone());
                let deleted = Arc::clone(&deleted);
                tokio::spawn(async move {
                    let mut idle = HOUR;
                    while !deleted.load(SeqCst) {
                        // Each for longer than memory can answer for, so that there is always one under way.
                        idle += SECOND;
                        store.touch(mine.id(), mine.owner(), idle).await.unwrap();
                    }
                    for _ in 0..4 {
                        let late = store.touch(mine.id(), mine.owner(), Duration::ZERO).await;
                        assert!(late.unwrap().is_none(), "a request after the delete");
                        yield_now().await;
                    }
                })
            })
            .collect();
        yield_now().await;
        assert!(store.delete(mine.id(), EndReason::Deleted).await.unwrap());
        deleted.store(true, SeqCst);
        for request in requests {
            request.await.unwrap();
        }
    }
}

#[test]
fn a_hit_allocates_nothing() {
    let store = cached(HOUR);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mine = fresh_session();
    runtime.block_on(async {
        insert(&store, &mine, &terms()).await;
        let found = store.touch(mine.id(), mine.owner(), HOUR).await.unwrap();
        assert!(found.is_some());
        let hit = allocation_counter::measure(|| {
            let now = store.touch_now(mine.id(), mine.owner(), HOUR);
            assert!(matches!(now, Now::Live(_)));
        });
        assert_eq!(hit.count_total, 0);
    });
}
