//! Whether a session is in use, has ended, and which registry serves it: one word, so that one step asks for all of it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The low bits count the uses.
#[derive(Debug, Default)]
pub(crate) struct State(AtomicU64);

/// The word as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

/// A registry's number. A session that is served by one is found there without a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home(u64);

impl Home {
    /// A number that no other registry of this process has; none, if they are used up.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, SeqCst);
        Self(if number < 1 << HOME_BITS { number } else { 0 })
    }
}

impl Moment {
    pub(crate) fn has_ended(self) -> bool {
        self.0 & ENDED != 0
    }

    pub(crate) fn uses(self) -> u64 {
        self.0 & USES
    }

    /// Whether a store's table holds this very handle.
    pub(crate) fn is_kept(self) -> bool {
        self.0 & KEPT != 0
    }

    /// Whether this registry serves the session, and it has not ended.
    pub(crate) fn is_served_by(self, home: Home) -> bool {
        self.0 & !USES & !(RESTING | TOLD | KEPT) == home.0 << HOME_AT && home.0 != 0
    }
}

impl State {
    pub(crate) fn now(&self) -> Moment {
        Moment(self.0.load(SeqCst))
    }

    /// Counts a use, and answers what was before.
    pub(crate) fn begin_use(&self) -> Moment {
        Moment(self.0.fetch_add(1, SeqCst))
    }

    /// Counts one use less, and answers what was before.
    pub(crate) fn end_use(&self) -> Moment {
        Moment(self.0.fetch_sub(1, SeqCst))
    }

    /// Says that it has ended. `false` if it had before.
    pub(crate) fn end(&self) -> bool {
        self.0.fetch_or(ENDED, SeqCst) & ENDED == 0
    }

    /// Makes a registry its home, unless it has one.
    pub(crate) fn settle(&self, home: Home) -> bool {
        let settled = self.0.fetch_update(SeqCst, SeqCst, |word| {
            (word >> HOME_AT == 0).then_some(word | home.0 << HOME_AT)
        });
        settled.is_ok()
    }

    /// Says that its idle time should be counted anew. `false` if that has been said and not been done.
    pub(crate) fn ask_for_rest(&self) -> bool {
        self.0.fetch_or(RESTING, SeqCst) & RESTING == 0
    }

    pub(crate) fn rested(&self) {
        self.0.fetch_and(!RESTING, SeqCst);
    }

    /// Says that the inner service knows of its end. `false` if it did before.
    pub(crate) fn tell(&self) -> bool {
        self.0.fetch_or(TOLD, SeqCst) & TOLD == 0
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
const RESTING: u64 = 1 << 33;
const TOLD: u64 = 1 << 34;
const KEPT: u64 = 1 << 35;
const HOME_AT: u32 = 40;
const HOME_BITS: u32 = 64 - HOME_AT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_served_by_the_registry_that_it_settled_in_until_it_ends() {
        let (state, home, other) = (State::default(), Home::new(), Home::new());
        assert!(!state.now().is_served_by(home));
        assert!(state.settle(home) && !state.settle(other));
        state.begin_use();
        state.keep();
        state.ask_for_rest();
        let now = state.now();
        assert!(now.is_served_by(home) && !now.is_served_by(other));
        assert_eq!(now.uses(), 1);
        assert!(state.end() && !state.end());
        assert!(!state.now().is_served_by(home));
        assert_eq!(state.end_use().uses(), 1);
    }

    #[test]
    fn without_a_number_a_registry_serves_nothing_without_a_look_up() {
        let state = State::default();
        assert!(!state.now().is_served_by(Home(0)));
    }
}
