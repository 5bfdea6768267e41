//! Who may be evicted, as far as the last look at all sessions says.

use std::{cmp::Reverse, time::Duration};

use tokio::sync::Mutex as Turn;

use crate::{
    session::{
        Session, WeakSession,
        times::{Tick, ticks},
    },
    store::AtLimit,
    sync::Mutex,
};

/// For how long sessions must have been left alone to be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    unused: Tick,
    untouched: Tick,
}

impl Patience {
    /// `None` if nobody is evicted.
    pub(super) fn of(at_limit: AtLimit) -> Option<Self> {
        match at_limit {
            AtLimit::Refuse => None,
            AtLimit::Evict { unused, untouched } => Some(Self {
                unused: ticks(unused),
                untouched: ticks(untouched),
            }),
        }
    }

    /// How much longer a session of this rank has to be left alone.
    pub(super) fn left(self, (was_touched, since): Rank, now: Tick) -> Tick {
        let patience = match was_touched {
            true => self.untouched,
            false => self.unused,
        };
        patience.saturating_sub(now.saturating_sub(since))
    }
}

/// Whether there was any request since its creation, and since when it is untouched. The lower goes first.
pub(super) type Rank = (bool, Tick);

pub(super) fn rank(session: &Session) -> Rank {
    session.times().untouched_since()
}

pub(super) fn may_go(session: &Session, now: Tick, patience: Patience) -> bool {
    session.times().live_until(now).is_some() && patience.left(rank(session), now) == 0
}

/// What is known of who may be evicted.
pub(super) enum Victim {
    Session(Session),
    Nobody,
    /// All sessions have to be looked at.
    Unknown,
}

/// The anonymous sessions of a scope that may be evicted, of the last look at all.
#[derive(Default)]
pub(super) struct Candidates {
    known: Mutex<Known>,
    /// Of those who look at all, one does it.
    pub(super) turn: Turn<()>,
}

#[derive(Default)]
struct Known {
    /// The first to go is the last here.
    sessions: Vec<(Rank, WeakSession)>,
    /// When all were looked at, and for which patience.
    looked: Option<(Tick, Patience)>,
    /// Until then nobody may be evicted who is not listed.
    nobody_until: Tick,
}

impl Candidates {
    /// `is_small` is whether all are looked at each time.
    pub(super) fn next(&self, is_small: bool, now: Tick, patience: Patience) -> Victim {
        let mut known = self.known.lock();
        let Some((looked, _)) = known.looked.filter(|(_, of)| *of == patience) else {
            return Victim::Unknown;
        };
        let fresh_for = if is_small { 0 } else { ticks(FRESH) };
        if looked.saturating_add(fresh_for) >= now {
            while let Some((its_rank, session)) = known.sessions.pop() {
                if let Some(session) = session.upgrade()
                    && rank(&session) == its_rank
                    && may_go(&session, now, patience)
                {
                    return Victim::Session(session);
                }
            }
        }
        match known.sessions.is_empty() && now < known.nobody_until {
            true => Victim::Nobody,
            false => Victim::Unknown,
        }
    }

    /// Whether a look at this instant or later has left some.
    pub(super) fn has_some_since(&self, now: Tick, patience: Patience) -> bool {
        let known = self.known.lock();
        let is_new = |(at, of): (Tick, Patience)| at >= now && of == patience;
        known.looked.is_some_and(is_new) && !known.sessions.is_empty()
    }

    /// Keeps what a look found.
    pub(super) fn learn(&self, found: Look, now: Tick, patience: Patience) {
        let mut sessions = found.sessions;
        sessions.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        *self.known.lock() = Known {
            sessions,
            looked: Some((now, patience)),
            nobody_until: found.nobody_until,
        };
    }
}

/// What a look at all sessions finds.
pub(super) struct Look {
    at_most: usize,
    sessions: Vec<(Rank, WeakSession)>,
    nobody_until: Tick,
}

impl Look {
    /// Nothing yet. Whoever is created from now on has all its time before it.
    pub(super) fn new(at_most: usize, now: Tick, patience: Patience) -> Self {
        Self {
            at_most,
            sessions: Vec::new(),
            nobody_until: now.saturating_add(patience.unused.min(patience.untouched)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn see(&mut self, session: &Session, now: Tick, patience: Patience) {
        let rank = rank(session);
        let left = patience.left(rank, now);
        if left > 0 {
            self.nobody_until = self.nobody_until.min(now.saturating_add(left));
            return;
        }
        if session.times().live_until(now).is_none() {
            return;
        }
        self.sessions.push((rank, session.downgrade()));
        if self.sessions.len() > self.at_most * 2 {
            let by_rank = |(rank, _): &(Rank, WeakSession)| *rank;
            self.sessions
                .select_nth_unstable_by_key(self.at_most, by_rank);
            self.sessions.truncate(self.at_most);
            // Those that are left out may go at once.
            self.nobody_until = 0;
        }
    }
}

/// How long candidates are good for, where not all sessions are looked at each time.
const FRESH: Duration = Duration::from_secs(10);
