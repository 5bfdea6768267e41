//! What a store answers.

use std::time::Duration;

use super::Limit;
use crate::{protocol::SessionRef, session::Session};

/// What became of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The session is live.
    New {
        /// How many more the scope has room for, if the store counts exactly.
        left: Option<u64>,
        /// The session that was evicted to make room.
        evicted: Option<SessionRef>,
    },
    /// A session with this id is live already.
    Exists,
    /// There is no room.
    Full(Limit),
    /// All sessions of its owner were revoked while this one was being created.
    Revoked,
}

/// A live session, and what is left of its time at the moment of the answer.
#[derive(Debug, Clone)]
pub struct Found {
    /// The session.
    pub session: Session,
    /// How long ago it was created.
    pub age: Duration,
    /// How long it may still be idle; at most `life_left`.
    pub idle_left: Duration,
    /// How long it may still live. `None`: no limit.
    pub life_left: Option<Duration>,
}

/// The answer of [`SessionStore::expire`](super::SessionStore::expire).
#[derive(Debug, Clone)]
pub enum Expiry {
    /// Its time was up, or it was gone already. Every later touch answers `None`.
    Over,
    /// It lives, and nothing was changed.
    Left(Found),
}

/// The answer of [`SessionStore::touch_now`](super::SessionStore::touch_now).
#[derive(Debug, Clone)]
pub enum Now {
    /// Live, this owner's, extended.
    Live(Found),
    /// Not live, or not this owner's.
    Absent,
    /// This process's memory does not know: call [`SessionStore::touch`](super::SessionStore::touch).
    Unknown,
}
