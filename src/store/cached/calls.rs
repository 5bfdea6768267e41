//! Calls to the primary in flight.
//!
//! Between the moment when the primary answers and the moment when its answer is remembered, the session may end, or be
//! created, and this cache may hear of it first. So each call is listed here before it is sent, and whatever brings newer
//! word of the session takes all its calls off the list: an answer to a call that is no longer listed may not be
//! remembered, and no other request may wait for it.

use std::{sync::Arc, time::Duration};

use hashbrown::HashTable;
use tokio::{sync::OnceCell, time::Instant};

use super::entries::Known;
use crate::{
    protocol::SessionRef,
    session::Owner,
    store::StoreError,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// What a touch was answered, for all who waited for it.
pub(super) type Answer = Result<Option<Known>, Arc<StoreError>>;

/// The calls in flight. The locks are taken before those of what is remembered.
pub(super) struct Calls(Box<[Mutex<HashTable<Arc<Call>>>]>);

struct Call {
    reference: SessionRef,
    begun: Instant,
    /// Of a touch, which others may wait for too: the owner, and for how long. An id is known by its reference.
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
    /// A call that no other request waits for.
    pub(super) fn begin(&self, reference: SessionRef) -> InFlight<'_> {
        let mut calls = self.shard(&reference).lock();
        self.add(&mut calls, reference, None)
    }

    /// The same touch if one is in flight that began less than `max_age` ago, or a new one.
    pub(super) fn join(
        &self,
        reference: SessionRef,
        owner: &Owner,
        idle: Duration,
        max_age: Duration,
    ) -> InFlight<'_> {
        let mut calls = self.shard(&reference).lock();
        let now = Instant::now();
        let same = calls.find(hash(&reference), |call| {
            call.reference == reference
                && call
                    .touch
                    .as_ref()
                    .is_some_and(|(asked_for, how_long)| asked_for == owner && *how_long == idle)
                && now.saturating_duration_since(call.begun) < max_age
        });
        match same.cloned() {
            Some(call) => {
                call.interested.fetch_add(1, Relaxed);
                InFlight { calls: self, call }
            }
            None => self.add(&mut calls, reference, Some((owner.clone(), idle))),
        }
    }

    /// Something newer is known of this session than what calls in flight will say.
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
    ) -> InFlight<'_> {
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
        InFlight { calls: self, call }
    }

    fn shard(&self, reference: &SessionRef) -> &Mutex<HashTable<Arc<Call>>> {
        &self.0[usize::from(reference.as_bytes()[31]) % SHARDS]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|calls| calls.lock().len()).sum()
    }
}

/// A request's interest in a call. When the last one is dropped, the call leaves the list.
pub(super) struct InFlight<'a> {
    calls: &'a Calls,
    call: Arc<Call>,
}

impl InFlight<'_> {
    pub(super) fn answer(&self) -> &OnceCell<Answer> {
        &self.call.answer
    }

    /// Ends the call, and remembers its answer unless something newer is known.
    pub(super) fn finish<T>(&self, remember: impl FnOnce() -> T) -> Option<T> {
        let mut calls = self.calls.shard(&self.call.reference).lock();
        self.remove(&mut calls).then(remember)
    }

    /// Ends the call, which has changed something: what else is in flight for this session is older. Says whether even
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

impl Drop for InFlight<'_> {
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

const SHARDS: usize = if cfg!(shuttle) { 1 } else { 64 };
