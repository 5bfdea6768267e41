//! Which sessions each principal has.

use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::{shard::shrink, shard_of};
use crate::session::Owner;

/// For each principal the hashes of its sessions, what has expired and is not yet swept included. Nobody is not a
/// principal: an application without logins pays nothing for this.
pub(super) struct Owners {
    hasher: RandomState,
    shards: Box<[Mutex<HashTable<Sessions>>]>,
}

struct Sessions {
    owner: Owner,
    owner_hash: u64,
    /// A hash that two sessions share is in here twice.
    hashes: HashTable<u64>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Owners {
    /// The sessions of this owner, which stay as they are until this is dropped. `None` for nobody.
    pub(super) fn lock<'a>(&'a self, owner: &'a Owner) -> Option<Owned<'a>> {
        owner.principal.as_ref()?;
        let owner_hash = self.hasher.hash_one(owner);
        let owners = self.shards[shard_of(owner_hash, SHARDS)].lock();
        Some(Owned {
            owner,
            owner_hash,
            owners,
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    #[cfg(test)]
    pub(super) fn is_unlocked(&self) -> bool {
        self.shards.iter().all(|shard| shard.try_lock().is_some())
    }
}

/// The sessions of one owner, locked.
pub(super) struct Owned<'a> {
    owner: &'a Owner,
    owner_hash: u64,
    owners: MutexGuard<'a, HashTable<Sessions>>,
}

impl Owned<'_> {
    pub(super) fn count(&self) -> u64 {
        self.sessions()
            .map_or(0, |sessions| sessions.hashes.len() as u64)
    }

    /// At most so many of the hashes, starting somewhere in the middle.
    pub(super) fn some(&self, at_most: usize, start: usize) -> Vec<u64> {
        let Some(Sessions { hashes, .. }) = self.sessions() else {
            return Vec::new();
        };
        let start = start % hashes.num_buckets();
        (start..hashes.num_buckets())
            .chain(0..start)
            .filter_map(|bucket| hashes.get_bucket(bucket).copied())
            .take(at_most)
            .collect()
    }

    pub(super) fn enter(&mut self, hash: u64) {
        let Self {
            owner,
            owner_hash,
            owners,
        } = self;
        owners
            .entry(
                *owner_hash,
                |sessions| sessions.owner == **owner,
                |sessions| sessions.owner_hash,
            )
            .or_insert_with(|| Sessions {
                owner: owner.clone(),
                owner_hash: *owner_hash,
                hashes: HashTable::new(),
            })
            .get_mut()
            .hashes
            .insert_unique(hash, hash, |hash| *hash);
    }

    pub(super) fn leave(&mut self, hash: u64) {
        let Self {
            owner,
            owner_hash,
            owners,
        } = self;
        let Ok(mut entry) = owners.find_entry(*owner_hash, |sessions| sessions.owner == **owner)
        else {
            return;
        };
        let hashes = &mut entry.get_mut().hashes;
        if let Ok(found) = hashes.find_entry(hash, |other| *other == hash) {
            found.remove();
        }
        if hashes.is_empty() {
            entry.remove();
            shrink(owners, |sessions| sessions.owner_hash);
        } else {
            shrink(hashes, |hash| *hash);
        }
    }

    fn sessions(&self) -> Option<&Sessions> {
        self.owners
            .find(self.owner_hash, |sessions| sessions.owner == *self.owner)
    }
}

/// A power of two.
const SHARDS: usize = 64;
