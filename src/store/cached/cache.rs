//! What is remembered, and the calls in flight that may not bring back what is forgotten.

use super::{
    calls::{Calls, InFlight},
    entries::{Entries, Known},
};
use crate::{protocol::SessionRef, session::Session};

/// Answers, and calls in flight.
pub(super) struct Cache {
    pub(super) entries: Entries,
    pub(super) calls: Calls,
}

impl Cache {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            entries: Entries::new(max_entries),
            calls: Calls::default(),
        }
    }

    /// Remembers a session that this call made or changed. What other calls in flight hear of it is older.
    pub(super) fn learn(&self, call: &InFlight<'_>, known: Known) {
        let _replaced = call.supersede(|may_write| {
            self.entries.forget_absences(&known.found.session);
            may_write.then(|| self.entries.put(known))
        });
    }

    /// Forgets that a session is live, and keeps calls in flight from remembering it again.
    pub(super) fn forget(&self, reference: &SessionRef) {
        self.calls.outdate(reference);
        self.entries.remove(reference);
    }

    pub(super) fn forget_all(&self, which: impl Fn(&Session) -> bool) {
        self.calls.outdate_all();
        self.entries.remove_all(which);
    }
}

/// Forgets a session when it is dropped, also with a call that was cancelled.
pub(super) struct Forget<'a> {
    cache: Option<&'a Cache>,
    reference: SessionRef,
}

impl<'a> Forget<'a> {
    pub(super) fn later(cache: &'a Cache, reference: SessionRef) -> Self {
        let cache = Some(cache);
        Self { cache, reference }
    }

    pub(super) fn not(&mut self) {
        self.cache = None;
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache {
            cache.forget(&self.reference);
        }
    }
}
