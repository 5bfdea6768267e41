//! Which scopes surely have room, so that not every birth has to count.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::session::Scope;

/// What was counted last in each scope.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<HashMap<Scope, Room>>);

#[derive(Debug)]
struct Room {
    /// How many sessions were live, and how many were born here since.
    sessions: u64,
    counted: Instant,
}

impl Rooms {
    /// Whether one more session may be born without counting, in which case it is noted. Counting a hundred thousand
    /// sessions takes the server some twenty milliseconds.
    pub(super) fn take(&self, scope: &Scope, total: NonZeroU64, now: Instant) -> bool {
        let mut rooms = self.0.lock();
        let Some(room) = rooms.get_mut(scope) else {
            return false;
        };
        let has_room = room.sessions < total.get() / 10 * 9;
        let is_recent = now.saturating_duration_since(room.counted) < RECENT;
        if has_room && is_recent {
            room.sessions += 1;
        }
        has_room && is_recent
    }

    pub(super) fn counted(&self, scope: &Scope, sessions: u64, now: Instant) {
        let counted = now;
        let room = Room { sessions, counted };
        self.0.lock().insert(scope.clone(), room);
    }
}

/// How long a count that leaves a tenth of the room is good for. Other nodes would have to fill that tenth within it.
const RECENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recent_count_far_from_the_limit_is_trusted() {
        let (rooms, scope, total) = (
            Rooms::default(),
            Scope::default(),
            NonZeroU64::new(100).unwrap(),
        );
        let now = Instant::now();
        assert!(!rooms.take(&scope, total, now), "never counted");
        rooms.counted(&scope, 88, now);
        assert!(
            !rooms.take(&Scope::new("other"), total, now),
            "another scope"
        );
        assert!(!rooms.take(&scope, total, now + RECENT), "too long ago");
        assert!(rooms.take(&scope, total, now), "the 89th");
        assert!(rooms.take(&scope, total, now), "the 90th");
        assert!(!rooms.take(&scope, total, now), "near the limit");
    }

    #[test]
    fn a_small_limit_is_always_counted() {
        let (rooms, scope, now) = (Rooms::default(), Scope::default(), Instant::now());
        rooms.counted(&scope, 0, now);
        assert!(!rooms.take(&scope, NonZeroU64::new(9).unwrap(), now));
    }
}
