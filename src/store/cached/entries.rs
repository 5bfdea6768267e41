//! What is remembered of sessions: the primary's last answers.

use std::{hash::BuildHasher as _, time::Duration};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use tokio::time::Instant;

use crate::{
    protocol::{SessionId, SessionRef},
    session::{Owner, Session},
    store::{Found, Now, memory::shard_of},
    sync::{Mutex, RwLock},
};

/// An answer of the primary: the session was live, and so much of its time was left.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) found: Found,
    /// When the primary was asked. The times in `found` count from here.
    asked: Instant,
    /// Whether it was a touch. Otherwise the first request still has to be one.
    touched: bool,
}

impl Known {
    pub(super) fn of_touch(mut found: Found, asked: Instant) -> Self {
        let touched = true;
        // The answer took its time, by which nobody is to be called older than it is.
        found.age = found.age.saturating_sub(asked.elapsed());
        Self {
            found,
            asked,
            touched,
        }
    }

    pub(super) fn of_creation(found: Found, asked: Instant) -> Self {
        let touched = false;
        Self {
            found,
            asked,
            touched,
        }
    }

    /// The answer as it is at this moment.
    pub(super) fn found(&self, now: Instant) -> Found {
        let since = now.saturating_duration_since(self.asked);
        Found {
            session: self.found.session.clone(),
            age: self.found.age.saturating_add(since),
            idle_left: self.found.idle_left.saturating_sub(since),
            life_left: self.found.life_left.map(|left| left.saturating_sub(since)),
        }
    }

    /// Whether a touch at this moment needs no word to the primary: it has answered not long ago, and lets the session
    /// live at least as long as this touch would.
    pub(super) fn covers(&self, now: Instant, idle: Duration, max_staleness: Duration) -> bool {
        let since = now.saturating_duration_since(self.asked);
        let left = self.found.idle_left.saturating_sub(since);
        let wanted = match self.found.life_left {
            Some(life_left) => idle.min(life_left.saturating_sub(since)),
            None => idle,
        };
        self.touched
            && since < max_staleness
            && !left.is_zero()
            && left.saturating_add(ROUNDING) >= wanted
    }

    /// Whether it is live as far as can be known without the primary.
    pub(super) fn outlasts_outage(&self, now: Instant, max_outage: Duration) -> bool {
        let since = now.saturating_duration_since(self.asked);
        since < max_outage && since < self.found.idle_left
    }

    fn reference(&self) -> &SessionRef {
        self.found.session.reference()
    }
}

/// At most so many sessions, and some absences.
pub(super) struct Entries {
    hasher: RandomState,
    shards: Box<[Shard]>,
    most_in_shard: usize,
    /// The hashes of ids by reference, for ends that name a session by its reference. These locks are taken last.
    hashes: Box<[Mutex<HashTable<Name>>]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<Tables>);

#[derive(Default)]
struct Tables {
    known: HashTable<Entry>,
    absent: HashTable<Absence>,
}

struct Entry {
    hash: u64,
    known: Known,
}

/// The primary's word that to this owner, or to all, there is no such session.
struct Absence {
    hash: u64,
    reference: SessionRef,
    owner: Option<Owner>,
    until: Instant,
}

/// The beginning of a reference, and the hash of its id.
#[derive(Clone, Copy, PartialEq)]
struct Name {
    prefix: u64,
    hash: u64,
}

impl Entries {
    pub(super) fn new(at_most: usize) -> Self {
        let shards = 1 << (at_most / 16).clamp(1, SHARDS).ilog2();
        Self {
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            most_in_shard: at_most / shards,
            hashes: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// What memory says to this owner: live, if the answer that is remembered is good enough.
    pub(super) fn look(
        &self,
        id: &SessionId,
        owner: &Owner,
        now: Instant,
        is_good: impl FnOnce(&Known) -> bool,
    ) -> Now {
        let hash = self.hasher.hash_one(id);
        let tables = self.shard(hash).read();
        let entry = tables.known.find(hash, |entry| {
            entry.hash == hash && entry.known.found.session.id() == id
        });
        if let Some(Entry { known, .. }) = entry
            && known.found.session.owner() == owner
            && is_good(known)
        {
            return Now::Live(known.found(now));
        }
        let absent = tables.absent.find(hash, |absence| {
            absence.hash == hash
                && now < absence.until
                && absence.owner.as_ref().is_none_or(|to| to == owner)
                && absence.reference == id.reference()
        });
        match absent {
            Some(_) => Now::Absent,
            None => Now::Unknown,
        }
    }

    /// Remembers an answer, and returns those that it replaced or evicted: to be dropped outside of all locks.
    pub(super) fn put(&self, mut known: Known) -> Vec<Known> {
        let hash = self.hasher.hash_one(known.found.session.id());
        let mut tables = self.shard(hash).write();
        tables.remove_absences(hash, known.found.session.owner());
        let is_same = |entry: &Entry| entry.known.reference() == known.reference();
        if let Some(entry) = tables.known.find_mut(hash, is_same) {
            // The same handle as before, which whoever serves the session knows already.
            let before = &entry.known.found.session;
            if before.owner() == known.found.session.owner() && !before.has_ended() {
                before.note_values(&known.found.session);
                known.found.session = before.clone();
            }
            return vec![std::mem::replace(&mut entry.known, known)];
        }
        if self.most_in_shard == 0 {
            return Vec::new();
        }
        let evicted = match tables.known.len() < self.most_in_shard {
            true => None,
            false => oldest_of_some(&tables.known, hash).and_then(|(hash, reference)| {
                self.take(&mut tables, hash, |known| *known.reference() == reference)
            }),
        };
        let name = Name::new(known.reference(), hash);
        self.names(name)
            .lock()
            .insert_unique(name.prefix, name, |name| name.prefix);
        tables
            .known
            .insert_unique(hash, Entry { hash, known }, |entry| entry.hash);
        evicted.into_iter().collect()
    }

    /// Remembers that there is no such session to this owner, or to all.
    pub(super) fn put_absent(
        &self,
        id: &SessionId,
        owner: Option<&Owner>,
        until: Instant,
    ) -> Vec<Known> {
        let hash = self.hasher.hash_one(id);
        let reference = id.reference();
        let mut removed = Vec::new();
        let mut tables = self.shard(hash).write();
        removed.extend(self.take(&mut tables, hash, |known| {
            *known.reference() == reference
                && owner.is_none_or(|owner| owner == known.found.session.owner())
        }));
        let most = MAX_ABSENCES / self.shards.len();
        if tables.absent.len() >= most {
            let now = Instant::now();
            tables.absent.retain(|absence| now < absence.until);
        }
        if tables.absent.len() >= most {
            tables.absent.clear();
        }
        let absence = Absence {
            hash,
            reference,
            owner: owner.cloned(),
            until,
        };
        tables
            .absent
            .insert_unique(hash, absence, |absence| absence.hash);
        removed
    }

    /// Forgets that this session was absent to its owner, or to all.
    pub(super) fn forget_absences(&self, session: &Session) {
        let hash = self.hasher.hash_one(session.id());
        let mut tables = self.shard(hash).write();
        tables.remove_absences(hash, session.owner());
    }

    /// Forgets a session.
    pub(super) fn remove(&self, reference: &SessionRef) {
        let prefix = Name::new(reference, 0);
        let hashes: Vec<u64> = self
            .names(prefix)
            .lock()
            .iter_hash(prefix.prefix)
            .filter(|name| name.prefix == prefix.prefix)
            .map(|name| name.hash)
            .collect();
        for hash in hashes {
            // The lock's guard goes at the end of this statement; the session outlives it.
            let _removed = self.take(&mut self.shard(hash).write(), hash, |known| {
                known.reference() == reference
            });
        }
    }

    /// Forgets a session if another owner than this one's is remembered.
    pub(super) fn remove_unless_owned_as(&self, session: &Session) {
        let hash = self.hasher.hash_one(session.id());
        let _removed = self.take(&mut self.shard(hash).write(), hash, |known| {
            known.reference() == session.reference()
                && known.found.session.owner() != session.owner()
        });
    }

    /// Forgets all these sessions.
    pub(super) fn remove_all(&self, which: impl Fn(&Session) -> bool) {
        for shard in &self.shards {
            let mut tables = shard.0.write();
            let removed: Vec<Entry> = tables
                .known
                .extract_if(|entry| which(&entry.known.found.session))
                .collect();
            for Entry { hash, known } in &removed {
                self.unname(Name::new(known.reference(), *hash));
            }
            drop(tables);
            drop(removed);
        }
    }

    fn take(
        &self,
        tables: &mut Tables,
        hash: u64,
        which: impl Fn(&Known) -> bool,
    ) -> Option<Known> {
        let is_meant = |entry: &Entry| entry.hash == hash && which(&entry.known);
        let (entry, _) = tables.known.find_entry(hash, is_meant).ok()?.remove();
        self.unname(Name::new(entry.known.reference(), hash));
        Some(entry.known)
    }

    fn unname(&self, name: Name) {
        let mut names = self.names(name).lock();
        if let Ok(found) = names.find_entry(name.prefix, |other| *other == name) {
            found.remove();
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Tables> {
        &self.shards[shard_of(hash, self.shards.len())].0
    }

    fn names(&self, name: Name) -> &Mutex<HashTable<Name>> {
        &self.hashes[shard_of(name.prefix, self.hashes.len())]
    }

    /// How many sessions, names and absences.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize, usize) {
        let tables = self.shards.iter().map(|shard| shard.0.read());
        let (known, absent) = tables.fold((0, 0), |sum, tables| {
            (sum.0 + tables.known.len(), sum.1 + tables.absent.len())
        });
        let names = self.hashes.iter().map(|names| names.lock().len()).sum();
        (known, names, absent)
    }
}

impl Tables {
    /// Those of others stay: what its owner does with a session must not change how others are answered.
    fn remove_absences(&mut self, hash: u64, owner: &Owner) {
        let is_over = |absence: &Absence| {
            absence.hash == hash && absence.owner.as_ref().is_none_or(|to| to == owner)
        };
        while let Ok(absence) = self.absent.find_entry(hash, is_over) {
            absence.remove();
        }
    }
}

impl Name {
    fn new(reference: &SessionRef, hash: u64) -> Self {
        let (prefix, _) = reference
            .as_bytes()
            .split_first_chunk()
            .expect("32 bytes are more than 8");
        let prefix = u64::from_le_bytes(*prefix);
        Self { prefix, hash }
    }
}

/// Of a few entries, starting somewhere in the middle, the one with the oldest answer.
fn oldest_of_some(known: &HashTable<Entry>, random: u64) -> Option<(u64, SessionRef)> {
    let buckets = known.num_buckets();
    let start = random.rotate_left(32) as usize % buckets;
    (start..buckets)
        .chain(0..start)
        .filter_map(|bucket| known.get_bucket(bucket))
        .take(SAMPLE)
        .min_by_key(|entry| entry.known.asked)
        .map(|entry| (entry.hash, *entry.known.reference()))
}

/// A power of two.
const SHARDS: usize = if cfg!(shuttle) { 1 } else { 64 };

const SAMPLE: usize = 8;

/// How many absences are remembered at most. More than that at once come from guessed ids.
const MAX_ABSENCES: usize = 8192;

/// By how much a store may round down what is left. It does so to every touch, cached or not.
const ROUNDING: Duration = Duration::from_millis(5);
