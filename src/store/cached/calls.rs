//! Calls to the primary that are under way.
//!
//! Between the moment when the primary answers and the moment when its answer is remembered, the session may end, or be
//! born, and this cache may hear of it first. So whoever asks says so here before, and whoever hears of something newer
//! takes all that is under way for this session out of the list: what is not in the list any more may not be remembered,
//! and nobody else may wait for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use super::entries::Known;
use crate::{protocol::SessionRef, session::Owner, store::StoreError};

/// What a touch was answered, for all who waited for it.
pub(super) type Answer = Result<Option<Known>, Arc<StoreError>>;

/// The calls under way. The locks are taken before those of what is remembered.
pub(super) struct Calls(Box<[Mutex<HashTable<Arc<Call>>>]>);

struct Call {
    reference: SessionRef,
    begun: Instant,
    /// Of a touch, which others may wait for too: whose, and for how long. An id is known by its reference.
    touch: Option<(Owner, Duration)>,
    answer: OnceCell<Answer>,
    /// How many hold it. Only changed under the lock.
    interested: AtomicUsize,
}

impl Default for Calls {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Calls {
    /// A call that nobody else waits for.
    pub(super) fn begin(&self, reference: SessionRef) -> UnderWay<'_> {
        let mut calls = self.shard(&reference).lock();
        self.add(&mut calls, reference, None)
    }

    /// The same touch if one is under way that began less than `max_age` ago, or a new one.
    pub(super) fn join(
        &self,
        reference: SessionRef,
        owner: &Owner,
        idle: Duration,
        max_age: Duration,
    ) -> UnderWay<'_> {
        let mut calls = self.shard(&reference).lock();
        let now = Instant::now();
        let same = calls.find(hash(&reference), |call| {
            call.reference == reference
                && call
                    .touch
                    .as_ref()
                    .is_some_and(|(filter, how_long)| filter == owner && *how_long == idle)
                && now.saturating_duration_since(call.begun) < max_age
        });
        match same.cloned() {
            Some(call) => {
                call.interested.fetch_add(1, Relaxed);
                UnderWay { calls: self, call }
            }
            None => self.add(&mut calls, reference, Some((owner.clone(), idle))),
        }
    }

    /// Something newer is known of this session than what is under way will say.
    pub(super) fn outdate(&self, reference: &SessionRef) {
        remove_all(&mut self.shard(reference).lock(), reference);
    }

    /// Something newer may be known of every session.
    pub(super) fn outdate_all(&self) {
        for calls in &self.0 {
            calls.lock().clear();
        }
    }

    fn add(
        &self,
        calls: &mut HashTable<Arc<Call>>,
        reference: SessionRef,
        touch: Option<(Owner, Duration)>,
    ) -> UnderWay<'_> {
        let call = Arc::new(Call {
            reference,
            begun: Instant::now(),
            touch,
            answer: OnceCell::new(),
            interested: AtomicUsize::new(1),
        });
        calls.insert_unique(hash(&reference), Arc::clone(&call), |call| {
            hash(&call.reference)
        });
        UnderWay { calls: self, call }
    }

    fn shard(&self, reference: &SessionRef) -> &Mutex<HashTable<Arc<Call>>> {
        &self.0[usize::from(reference.as_bytes()[31]) % SHARDS]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|calls| calls.lock().len()).sum()
    }
}

/// Somebody's interest in a call. When the last one is dropped, the call leaves the list.
pub(super) struct UnderWay<'a> {
    calls: &'a Calls,
    call: Arc<Call>,
}

impl UnderWay<'_> {
    pub(super) fn answer(&self) -> &OnceCell<Answer> {
        &self.call.answer
    }

    /// Ends the call, and remembers its answer unless something newer is known.
    pub(super) fn finish<T>(&self, remember: impl FnOnce() -> T) -> Option<T> {
        let mut calls = self.calls.shard(&self.call.reference).lock();
        self.remove(&mut calls).then(remember)
    }

    /// Ends the call, which has changed something: what else is under way for this session is older. Says whether even
    /// newer is known.
    pub(super) fn supersede<T>(&self, remember: impl FnOnce(bool) -> T) -> T {
        let mut calls = self.calls.shard(&self.call.reference).lock();
        let is_newest = self.remove(&mut calls);
        remove_all(&mut calls, &self.call.reference);
        remember(is_newest)
    }

    /// Whether it was in the list.
    fn remove(&self, calls: &mut HashTable<Arc<Call>>) -> bool {
        let is_this = |other: &Arc<Call>| Arc::ptr_eq(other, &self.call);
        match calls.find_entry(hash(&self.call.reference), is_this) {
            Ok(found) => {
                found.remove();
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.shard(&self.call.reference).lock();
        if self.call.interested.fetch_sub(1, Relaxed) == 1 {
            self.remove(&mut calls);
        }
    }
}

fn remove_all(calls: &mut HashTable<Arc<Call>>, reference: &SessionRef) {
    while let Ok(call) = calls.find_entry(hash(reference), |call| call.reference == *reference) {
        call.remove();
    }
}

fn hash(reference: &SessionRef) -> u64 {
    let (first, _) = reference
        .as_bytes()
        .split_first_chunk()
        .expect("32 bytes are more than 8");
    u64::from_le_bytes(*first)
}

const SHARDS: usize = 64;
