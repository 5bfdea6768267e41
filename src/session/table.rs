//! A table of sessions by a hash.

use super::Session;

/// A hash table whose look-up touches one line of memory besides the session itself: a bucket holds the hashes and the
/// handles of five sessions side by side. What does not fit goes to the next bucket with room, and each bucket that was
/// passed counts it, so that a look-up knows where to stop and a removal leaves no trace.
///
/// A general table needs two lines, and a third for what it points to. With a million sessions these are what a
/// look-up waits for.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Their number is a power of two, or none.
    buckets: Box<[Bucket]>,
    len: usize,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    hashes: [u32; SLOTS],
    /// How many sessions should be here and are further on.
    passed: u32,
    sessions: [Option<Session>; SLOTS],
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The room for sessions.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// The session with this hash that is meant.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_meant: impl Fn(&Session) -> bool) -> Option<&Session> {
        let (bucket, slot) = self.position(hash, is_meant)?;
        self.buckets[bucket].sessions[slot].as_ref()
    }

    /// Adds a session, also where there is another one with this hash.
    pub(crate) fn insert(&mut self, hash: u32, session: Session) {
        if self.len >= self.buckets.len() * FULL {
            self.resize(self.buckets.len().max(1) * if self.len == 0 { 1 } else { 2 });
        }
        self.len += 1;
        self.place(hash, session);
    }

    /// Takes out the session with this hash that is meant.
    pub(crate) fn remove(
        &mut self,
        hash: u32,
        is_meant: impl Fn(&Session) -> bool,
    ) -> Option<Session> {
        let (bucket, slot) = self.position(hash, is_meant)?;
        let session = self.buckets[bucket].sessions[slot].take();
        for passed in self.probe(hash).take_while(|at| *at != bucket) {
            self.buckets[passed].passed -= 1;
        }
        self.len -= 1;
        // So late that a table does not shrink and grow in turn.
        if self.len * 8 < self.buckets.len() * SLOTS && self.buckets.len() > 8 {
            self.resize(self.buckets.len() / 4);
        }
        session
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.iter_from(0)
    }

    /// All sessions, starting somewhere in the middle.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &Session> {
        let start = start % self.buckets.len().max(1);
        let (before, after) = self.buckets.split_at(start);
        let buckets = after.iter().chain(before);
        buckets.flat_map(|bucket| bucket.sessions.iter().flatten())
    }

    /// The sessions of so many buckets, in one window of all. The windows repeat.
    pub(crate) fn window(&self, nth: usize, buckets: usize) -> impl Iterator<Item = &Session> {
        let windows = self.buckets.len().div_ceil(buckets).max(1);
        let window = self.buckets.chunks(buckets).nth(nth % windows);
        window
            .unwrap_or_default()
            .iter()
            .flat_map(|bucket| bucket.sessions.iter().flatten())
    }

    #[inline]
    fn position(&self, hash: u32, is_meant: impl Fn(&Session) -> bool) -> Option<(usize, usize)> {
        for at in self.probe(hash) {
            let bucket = &self.buckets[at];
            for (slot, other) in bucket.hashes.iter().enumerate() {
                if *other == hash
                    && let Some(session) = &bucket.sessions[slot]
                    && is_meant(session)
                {
                    return Some((at, slot));
                }
            }
            if bucket.passed == 0 {
                return None;
            }
        }
        None
    }

    /// Every bucket once, the one where a session of this hash should be first.
    #[inline]
    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let buckets = self.buckets.len();
        let mask = buckets.wrapping_sub(1);
        (0..buckets).map(move |step| (hash as usize).wrapping_add(step) & mask)
    }

    fn place(&mut self, hash: u32, session: Session) {
        for at in self.probe(hash) {
            let bucket = &mut self.buckets[at];
            if let Some(slot) = bucket.sessions.iter().position(Option::is_none) {
                bucket.hashes[slot] = hash;
                bucket.sessions[slot] = Some(session);
                return;
            }
            bucket.passed += 1;
        }
        unreachable!("a table has room for what is placed in it");
    }

    fn resize(&mut self, buckets: usize) {
        let mut empty = Vec::new();
        empty.resize_with(buckets, Bucket::default);
        for bucket in std::mem::replace(&mut self.buckets, empty.into()) {
            for (hash, session) in bucket.hashes.into_iter().zip(bucket.sessions) {
                if let Some(session) = session {
                    self.place(hash, session);
                }
            }
        }
    }
}

/// So many handles and hashes, and a count, are 64 bytes.
const SLOTS: usize = 5;
/// At so many sessions for each bucket a table grows.
const FULL: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        protocol::SessionId,
        session::{Issuer, Owner, Scope, SessionRecord},
    };

    fn session() -> Session {
        let owner = Owner {
            scope: Scope::default(),
            principal: None,
        };
        Session::new(SessionId::issue(), SessionRecord::new(owner, Issuer::Layer))
    }

    #[test]
    fn a_bucket_is_a_line_of_memory() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    proptest! {
        /// Against a map, with so few hashes that most are shared and buckets overflow all the time.
        #[test]
        fn it_holds_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((any::<bool>(), 0..6u32, any::<prop::sample::Index>()), 0..400),
        ) {
            let mut table = Table::default();
            let mut model: HashMap<SessionId, (u32, Session)> = HashMap::new();
            for (inserts, hash, which) in steps {
                if inserts || model.is_empty() {
                    let session = session();
                    table.insert(hash, session.clone());
                    model.insert(session.id().clone(), (hash, session));
                } else {
                    let mut ids: Vec<_> = model.keys().cloned().collect();
                    ids.sort_by(|a, b| a.expose().cmp(b.expose()));
                    let id = which.get(&ids).clone();
                    let (hash, _) = model.remove(&id).unwrap();
                    let removed = table.remove(hash, |session| *session.id() == id);
                    prop_assert!(removed.is_some_and(|removed| *removed.id() == id));
                    prop_assert!(table.find(hash, |session| *session.id() == id).is_none());
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.iter_from(3).count(), model.len());
            }
            for (id, (hash, _)) in &model {
                prop_assert!(table.find(*hash, |session| session.id() == id).is_some());
            }
            let windows = (0..table.buckets.len().div_ceil(2)).map(|nth| table.window(nth, 2).count());
            prop_assert_eq!(windows.sum::<usize>(), model.len());
            for (id, (hash, _)) in &model {
                prop_assert!(table.remove(*hash, |session| session.id() == id).is_some());
            }
            let counted = table.buckets.iter().map(|bucket| bucket.passed).sum::<u32>();
            prop_assert_eq!(counted, 0);
        }
    }
}
