//! Whether a session is in use, has ended, and which registry serves it: one word, so that one step asks for all of it.

use crate::sync::{
    StaticAtomicU64,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// The low bits count the uses.
#[derive(Debug, Default)]
pub(crate) struct State(AtomicU64);

/// The word as it was when it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot(u64);

/// A registry's number in this process. A session that carries it needs no look-up in that registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegistryId(u64);

impl RegistryId {
    /// A number that no other registry of this process has; none, if they are used up.
    pub(crate) fn new() -> Self {
        static NEXT: StaticAtomicU64 = StaticAtomicU64::new(1);
        let number = NEXT.fetch_add(1, SeqCst);
        Self(if number < 1 << ID_BITS { number } else { 0 })
    }
}

impl Snapshot {
    pub(crate) fn has_ended(self) -> bool {
        self.0 & ENDED != 0
    }

    pub(crate) fn uses(self) -> u64 {
        self.0 & USES
    }

    pub(crate) fn is_undelivered(self) -> bool {
        self.0 & UNDELIVERED != 0
    }

    /// Whether a store's table holds this very handle.
    pub(crate) fn is_kept(self) -> bool {
        self.0 & KEPT != 0
    }

    /// Whether this registry serves the session, and it has not ended.
    pub(crate) fn is_served_by(self, registry: RegistryId) -> bool {
        self.0 & !USES & !ASIDE == registry.0 << ID_AT && registry.0 != 0
    }

    /// Whether this process's inner service has answered a request on it.
    pub(crate) fn is_served(self) -> bool {
        self.0 & SERVED != 0
    }

    /// Whether the inner service seems to have forgotten it.
    pub(crate) fn is_marked(self) -> bool {
        self.0 & MARKED != 0
    }

    /// Both at once.
    #[inline]
    pub(crate) fn is_served_and_unmarked(self) -> bool {
        self.0 & (SERVED | MARKED) == SERVED
    }
}

impl State {
    pub(crate) fn now(&self) -> Snapshot {
        Snapshot(self.0.load(SeqCst))
    }

    /// Counts a use, and answers what was before.
    pub(crate) fn begin_use(&self) -> Snapshot {
        Snapshot(self.0.fetch_add(1, SeqCst))
    }

    /// Counts one use less, and answers what was before.
    pub(crate) fn end_use(&self) -> Snapshot {
        Snapshot(self.0.fetch_sub(1, SeqCst))
    }

    /// Says that it has ended. `false` if it had before.
    pub(crate) fn end(&self) -> bool {
        self.0.fetch_or(ENDED, SeqCst) & ENDED == 0
    }

    /// Assigns it to a registry, unless it has one.
    pub(crate) fn assign(&self, registry: RegistryId) -> bool {
        let settled = self.0.fetch_update(SeqCst, SeqCst, |word| {
            (word >> ID_AT == 0).then_some(word | registry.0 << ID_AT)
        });
        settled.is_ok()
    }

    /// Asks for a touch, so that its idle time starts anew. `false` if one has been asked for and not been taken up.
    pub(crate) fn ask_for_touch(&self) -> bool {
        self.0.fetch_or(TOUCH_ASKED, SeqCst) & TOUCH_ASKED == 0
    }

    pub(crate) fn touch_taken(&self) {
        self.0.fetch_and(!TOUCH_ASKED, SeqCst);
    }

    /// Says that the inner service knows of its end, or is being notified. `false` if that was said before.
    pub(crate) fn mark_notified(&self) -> bool {
        self.0.fetch_or(NOTIFIED, SeqCst) & NOTIFIED == 0
    }

    /// Says that the inner service has answered a request on it, so that it cannot have forgotten it. Answers what was
    /// before.
    pub(crate) fn serve(&self) -> Snapshot {
        let before = self.0.fetch_or(SERVED, SeqCst);
        if before & MARKED != 0 {
            self.0.fetch_and(!MARKED, SeqCst);
        }
        Snapshot(before)
    }

    /// Says that the inner service seems to have forgotten it. `false` if that was said before.
    pub(crate) fn mark(&self) -> bool {
        self.0.fetch_or(MARKED, SeqCst) & MARKED == 0
    }

    /// Takes back what [`mark`](Self::mark) said.
    pub(crate) fn unmark(&self) {
        self.0.fetch_and(!MARKED, SeqCst);
    }

    /// Says that the answer with its id seems not to have reached its client. Until it is used: a look-up then goes
    /// through the registry.
    pub(crate) fn mark_undelivered(&self) {
        self.0.fetch_or(UNDELIVERED, SeqCst);
    }

    pub(crate) fn clear_undelivered(&self) {
        self.0.fetch_and(!UNDELIVERED, SeqCst);
    }

    /// Says that it is in a store's table. `false` if it was before.
    pub(crate) fn keep(&self) -> bool {
        self.0.fetch_or(KEPT, SeqCst) & KEPT == 0
    }

    /// Says that it is in no store's table any more, or was not taken into it.
    pub(crate) fn release(&self) {
        self.0.fetch_and(!KEPT, SeqCst);
    }
}

const USES: u64 = (1 << 32) - 1;
const ENDED: u64 = 1 << 32;
const TOUCH_ASKED: u64 = 1 << 33;
const NOTIFIED: u64 = 1 << 34;
const KEPT: u64 = 1 << 35;
const SERVED: u64 = 1 << 36;
const MARKED: u64 = 1 << 37;
const UNDELIVERED: u64 = 1 << 38;
/// What is no matter of which registry serves it.
const ASIDE: u64 = TOUCH_ASKED | NOTIFIED | KEPT | SERVED | MARKED;
const ID_AT: u32 = 40;
const ID_BITS: u32 = 64 - ID_AT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_served_by_the_registry_that_it_was_assigned_to_until_it_ends() {
        let (state, registry, other) = (State::default(), RegistryId::new(), RegistryId::new());
        assert!(!state.now().is_served_by(registry));
        assert!(state.assign(registry) && !state.assign(other));
        state.begin_use();
        state.keep();
        state.ask_for_touch();
        state.serve();
        state.mark();
        let now = state.now();
        assert!(now.is_served_by(registry) && !now.is_served_by(other));
        assert_eq!(now.uses(), 1);
        state.mark_undelivered();
        assert!(!state.now().is_served_by(registry), "its use is noted");
        state.clear_undelivered();
        assert!(state.now().is_served_by(registry));
        assert!(state.end() && !state.end());
        assert!(!state.now().is_served_by(registry));
        assert_eq!(state.end_use().uses(), 1);
    }

    #[test]
    fn without_a_number_a_registry_serves_nothing_without_a_look_up() {
        let state = State::default();
        assert!(!state.now().is_served_by(RegistryId(0)));
    }
}
