//! Listing, counting and ending sessions by owner and reference.
//!
//! The table is keyed by the id, so that a request pays for nothing here. Reading by anything else walks over it, shard by
//! shard, and lets other tasks run in between.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::yield_now;

use super::{Inner, MemoryStore, Slot};
use crate::{
    protocol::SessionRef,
    session::{Scope, SessionRecord},
    store::{BoxFuture, Directory, EndReason, Found, SessionFilter, SessionInfo, StoreError},
};

impl Directory for MemoryStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            // One number that is right at one instant: a walk would count twice what ended behind it and was born
            // ahead of it.
            self.0.purge(self.0.now()).await;
            if let SessionFilter::Scope(scope) = filter {
                let tally = self.0.tallies.get(scope);
                return Ok(tally.map_or(0, |tally| tally.sessions()));
            }
            if let SessionFilter::Owner(owner) = filter
                && let Some(owned) = self.0.owners.lock(owner)
            {
                return Ok(owned.count());
            }
            let mut count = 0;
            self.0.visit(filter, |_, _| count += 1).await;
            Ok(count)
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let mut page = BTreeMap::new();
            self.0
                .visit(filter, |slot, found| {
                    let reference = slot.session.reference();
                    let full = page.len() == at_most;
                    let last = page.last_key_value().map(|(last, _)| *last);
                    if after.is_some_and(|after| reference <= after)
                        || full && last.is_none_or(|last| *reference > last)
                    {
                        return;
                    }
                    if full {
                        page.pop_last();
                    }
                    page.insert(*reference, found());
                })
                .await;
            Ok(page.values().map(info_of).collect())
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut hash = None;
            self.0
                .visit(&SessionFilter::Scope(scope.clone()), |slot, _| {
                    if slot.session.reference() == reference {
                        hash = Some(slot.hash);
                    }
                })
                .await;
            let ended = hash.and_then(|hash| {
                self.0.end(hash, self.0.now(), reason, |slot| {
                    slot.session.reference() == reference && slot.session.owner().scope == *scope
                })
            });
            Ok(ended.is_some())
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            // First, so that a birth that this does not see sees this.
            self.0.revocations.add(filter, || self.0.now());
            let mut hashes = Vec::new();
            self.0.visit(filter, |slot, _| hashes.push(slot.hash)).await;
            let mut ended = 0;
            for (nth, hash) in hashes.into_iter().enumerate() {
                if nth % BREATH == BREATH - 1 {
                    yield_now().await;
                }
                let gone = self.0.end(hash, self.0.now(), reason, |slot| {
                    filter.includes(slot.session.owner())
                });
                ended += u64::from(gone.is_some());
            }
            Ok(ended)
        })
    }
}

impl Inner {
    /// Shows each live session that is meant, under its shard's lock.
    async fn visit(
        &self,
        filter: &SessionFilter,
        mut see: impl FnMut(&Slot, &dyn Fn() -> Found) + Send,
    ) {
        let mut see = |slot: &Slot, now| {
            if let Some(until) = slot.live_until(now) {
                see(slot, &|| slot.found(now, until));
            }
        };
        let owned = match filter {
            SessionFilter::Owner(owner) => self
                .owners
                .lock(owner)
                .map(|owned| owned.some(usize::MAX, 0)),
            SessionFilter::Scope(_) => None,
        };
        if let Some(hashes) = owned {
            for some in hashes.chunks(BREATH) {
                let now = self.now();
                for hash in some {
                    let table = self.shard(*hash).read();
                    table
                        .with_hash(*hash)
                        .filter(|slot| filter.includes(slot.session.owner()))
                        .for_each(|slot| see(slot, now));
                }
                yield_now().await;
            }
        } else if let Some(tally) = self.tallies.get(filter.scope()) {
            let all = matches!(filter, SessionFilter::Scope(_));
            for shard in &self.shards {
                {
                    let now = self.now();
                    let table = shard.read();
                    table
                        .iter()
                        // Compared by address first: following a pointer to each session costs ten times as much.
                        .filter(|slot| Arc::ptr_eq(&slot.tally, &tally))
                        .filter(|slot| all || filter.includes(slot.session.owner()))
                        .for_each(|slot| see(slot, now));
                }
                yield_now().await;
            }
        }
    }
}

fn info_of(found: &Found) -> SessionInfo {
    let record = found.session.record();
    SessionInfo {
        reference: *found.session.reference(),
        record: SessionRecord {
            initialize_params: None,
            ..record.clone()
        },
        age: found.age,
        idle_left: found.idle_left,
        life_left: found.life_left,
    }
}

/// After how many sessions other tasks may run.
const BREATH: usize = 64;
