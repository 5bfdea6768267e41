//! Tombstones of owners and scopes whose sessions were all revoked, against creations in flight at that instant.

use std::collections::VecDeque;

use crate::{
    session::{Owner, times::Tick},
    store::SessionFilter,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The last revocations.
#[derive(Default)]
pub(super) struct Revocations {
    /// When the last one was, so that a creation that began after it need not look further.
    last: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// In the order of their instants.
    entries: VecDeque<(Tick, SessionFilter)>,
    /// Every entry that had to go was from this instant or before.
    forgotten: Tick,
}

impl Revocations {
    /// Records that all these sessions are revoked now. To be called before they are looked for.
    pub(super) fn add(&self, filter: &SessionFilter, now: impl FnOnce() -> Tick) {
        let mut log = self.log.lock();
        // Read under the lock, which puts the entries in the order of their instants.
        let now = now();
        if log.entries.len() == AT_MOST
            && let Some((at, _)) = log.entries.pop_front()
        {
            log.forgotten = at;
        }
        log.entries.push_back((now, filter.clone()));
        self.last.store(now, Relaxed);
    }

    /// Whether this owner's sessions were all revoked after the instant at which a creation began. Of revocations so
    /// old that they are forgotten it is assumed.
    pub(super) fn revoked(&self, owner: &Owner, began: Tick) -> bool {
        if self.last.load(Relaxed) <= began {
            return false;
        }
        let log = self.log.lock();
        log.forgotten > began
            || log
                .entries
                .iter()
                .rev()
                .take_while(|(at, _)| *at > began)
                .any(|(_, filter)| filter.includes(owner))
    }
}

/// Creations take milliseconds, so that only the last few entries are ever looked at.
const AT_MOST: usize = 4096;
