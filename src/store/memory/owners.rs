//! Which sessions each principal has.

use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::{shard::low, shard_of};
use crate::{
    session::{Owner, Session, Table},
    sync::{Mutex, MutexGuard},
};

/// For each principal its sessions, what has expired and is not yet swept included. Anonymous sessions are in no list: an
/// application without logins pays nothing for this.
pub(super) struct Owners {
    hasher: RandomState,
    shards: Box<[Mutex<HashTable<Sessions>>]>,
}

/// Of one owner. Most have one or a few.
enum Sessions {
    /// With the hash of its id.
    One(u32, Session),
    Many(Box<Table>),
}

impl Sessions {
    fn owner(&self) -> &Owner {
        let mut sessions = self.iter();
        let session = sessions
            .next()
            .expect("an owner without sessions has no list");
        session.owner()
    }

    fn iter(&self) -> Box<dyn Iterator<Item = &Session> + '_> {
        self.iter_from(0)
    }

    fn iter_from(&self, start: usize) -> Box<dyn Iterator<Item = &Session> + '_> {
        match self {
            Self::One(_, session) => Box::new(std::iter::once(session)),
            Self::Many(table) => Box::new(table.iter_from(start)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(table) => table.len(),
        }
    }
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
    /// The sessions of this owner, which stay as they are until this is dropped. `None` if it is anonymous.
    pub(super) fn lock<'a>(&'a self, owner: &'a Owner) -> Option<Owned<'a>> {
        owner.principal.as_ref()?;
        let owner_hash = self.hasher.hash_one(owner);
        let owners = self.shards[shard_of(owner_hash, SHARDS)].lock();
        Some(Owned {
            owner,
            owner_hash,
            owners,
            hasher: &self.hasher,
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
    hasher: &'a RandomState,
}

impl Owned<'_> {
    pub(super) fn count(&self) -> u64 {
        self.sessions().map_or(0, |sessions| sessions.len() as u64)
    }

    /// At most so many of the sessions, starting somewhere in the middle.
    pub(super) fn some(&self, at_most: usize, start: usize) -> Vec<Session> {
        let sessions = self.sessions();
        let sessions = sessions
            .into_iter()
            .flat_map(|sessions| sessions.iter_from(start));
        sessions.take(at_most).cloned().collect()
    }

    /// `hash` is that of the session's id.
    pub(super) fn add(&mut self, hash: u64, session: Session) {
        let Self {
            owner,
            owner_hash,
            owners,
            hasher,
        } = self;
        let entry = owners.entry(
            *owner_hash,
            |sessions| sessions.owner() == *owner,
            |sessions| hasher.hash_one(sessions.owner()),
        );
        match entry {
            Entry::Vacant(free) => {
                free.insert(Sessions::One(low(hash), session));
            }
            Entry::Occupied(mut taken) => {
                let sessions = taken.get_mut();
                if let Sessions::One(its_hash, first) = sessions {
                    let mut table = Box::<Table>::default();
                    table.insert(*its_hash, first.clone());
                    *sessions = Sessions::Many(table);
                }
                if let Sessions::Many(table) = sessions {
                    table.insert(low(hash), session);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, hash: u64, session: &Session) {
        let Self {
            owner,
            owner_hash,
            owners,
            hasher,
        } = self;
        let Ok(mut entry) = owners.find_entry(*owner_hash, |sessions| sessions.owner() == *owner)
        else {
            return;
        };
        let is_last = match entry.get_mut() {
            Sessions::One(_, only) => only.is(session),
            Sessions::Many(table) => {
                table.remove(low(hash), |other| other.is(session));
                table.len() == 0
            }
        };
        if is_last {
            entry.remove();
            if owners.len() * 8 < owners.capacity() {
                let rehash = |sessions: &Sessions| hasher.hash_one(sessions.owner());
                let few = owners.len() * 2;
                owners.shrink_to(few, rehash);
            }
        }
    }

    fn sessions(&self) -> Option<&Sessions> {
        self.owners
            .find(self.owner_hash, |sessions| sessions.owner() == self.owner)
    }
}

/// A power of two.
const SHARDS: usize = if cfg!(shuttle) { 1 } else { 64 };
