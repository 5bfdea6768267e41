//! Which session is ended for another at a limit.

use std::{sync::Arc, time::Duration};

use super::{Inner, Slot, Tally, Tick};
use crate::{
    protocol::SessionRef,
    session::Owner,
    store::{EndReason, Terms},
};

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

    /// Ends the victim, unless it was used, or ended, since it was chosen. Its place is the newcomer's from the same
    /// moment, so that nobody else takes it and a second one has to go.
    pub(super) fn evict(
        &self,
        victim: u64,
        among: Among<'_>,
        newcomer: u64,
        terms: &Terms,
        now: Tick,
        untouched: Duration,
    ) -> Option<(SessionRef, Place)> {
        // Declared before the lock's guard and therefore dropped after it.
        let slot;
        let mut table = self.shard(victim).write();
        slot = table.take(victim, |slot| {
            among.includes(slot) && slot.dispensable(now, untouched).is_some()
        })?;
        let mut place = Place {
            in_scope: slot.tally.hand_over(terms.total),
            of_principal: false,
        };
        if let Some(mut owned) = self.owners.lock(slot.session.owner()) {
            owned.leave(victim);
            if let (Among::Owner(_), Some(limit)) = (among, terms.per_principal)
                && owned.count() < limit.get()
            {
                owned.enter(newcomer);
                place.of_principal = true;
            }
        }
        drop(table);
        let reference = *slot.session.reference();
        self.ends.announce(reference, EndReason::Evicted);
        Some((reference, place))
    }

    /// Gives back the place of a newcomer that was not born.
    pub(super) fn give_back(&self, place: Place, tally: &Tally, owner: &Owner, newcomer: u64) {
        if place.in_scope {
            tally.leave();
        }
        if place.of_principal
            && let Some(mut owned) = self.owners.lock(owner)
        {
            owned.leave(newcomer);
        }
    }
}

/// Where a newcomer is counted already, in place of the one that was ended for it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) in_scope: bool,
    pub(super) of_principal: bool,
}

/// Of so many sessions all are seen.
const SEE_ALL: usize = 1024;

/// Of more sessions so many are seen in each shard: a sample of a thousand.
const PER_SHARD: usize = 4;
