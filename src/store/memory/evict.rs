//! Which session is ended for another at a limit.

use std::{sync::Arc, time::Duration};

use super::{Inner, Slot, Tally, Tick};
use crate::{id::SessionRef, owner::Owner, store::EndReason};

/// Among whose sessions one has to go: those that the limit counts.
#[derive(Clone, Copy)]
pub(super) enum Among<'a> {
    Scope(&'a Arc<Tally>),
    Owner(&'a Owner),
}

impl Among<'_> {
    fn includes(self, slot: &Slot) -> bool {
        match self {
            Self::Scope(tally) => Arc::ptr_eq(tally, &slot.tally),
            Self::Owner(owner) => slot.session.owner() == owner,
        }
    }
}

impl Inner {
    /// The hash of the session, of a sample, that can best be spared. `random` says where the sample starts.
    pub(super) fn victim(
        &self,
        among: Among<'_>,
        random: u64,
        now: Tick,
        untouched: Duration,
    ) -> Option<u64> {
        let mut best = None;
        let mut consider = |slot: &Slot| {
            if let Some(rank) = slot.dispensable(now, untouched)
                && best.is_none_or(|(least, _)| rank < least)
            {
                best = Some((rank, slot.hash));
            }
        };
        // Another start in each shard, from bits that did not choose the newcomer's own.
        let start = random.rotate_left(32) as usize;
        match among {
            Among::Scope(tally) => {
                let few = tally.sessions() <= SEE_ALL as u64;
                let at_most = if few { usize::MAX } else { PER_SHARD };
                for (shard, offset) in self.shards.iter().zip((0..).step_by(7919)) {
                    let table = shard.read();
                    table
                        .iter_from(start.wrapping_add(offset))
                        .filter(|slot| among.includes(slot))
                        .take(at_most)
                        .for_each(&mut consider);
                }
            }
            Among::Owner(owner) => {
                let hashes = self.owners.lock(owner)?.some(SEE_ALL, start);
                for hash in hashes {
                    let table = self.shard(hash).read();
                    table
                        .with_hash(hash)
                        .filter(|slot| among.includes(slot))
                        .for_each(&mut consider);
                }
            }
        }
        best.map(|(_, hash)| hash)
    }

    /// Ends the victim, unless it was used, or ended, since it was chosen.
    pub(super) fn evict(
        &self,
        victim: u64,
        among: Among<'_>,
        now: Tick,
        untouched: Duration,
    ) -> Option<SessionRef> {
        self.end(victim, now, EndReason::Evicted, |slot| {
            among.includes(slot) && slot.dispensable(now, untouched).is_some()
        })
    }
}

/// Of so many sessions all are seen.
const SEE_ALL: usize = 1024;

/// Of more sessions so many are seen in each shard: a sample of a thousand.
const PER_SHARD: usize = 4;
