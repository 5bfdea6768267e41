//! Where sessions are kept: the trait, and what its verbs answer.

use std::{fmt, future::Future, num::NonZeroU64, pin::Pin, sync::Arc, time::Duration};

use crate::{
    protocol::{SessionId, SessionRef},
    session::{Owner, Session},
};

mod boxed;
mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod error;
mod feed;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    boxed::BoxSessionStore,
    cached::CachedStore,
    directory::{Directory, SessionFilter, SessionInfo},
    error::{StoreError, StoreErrorKind},
    feed::{Feed, FeedEvent},
    memory::MemoryStore,
};

/// Where sessions are kept.
///
/// # Contract
///
/// * **`create` is the only insert.** No other verb makes a session live, whatever races with it: nothing
///   brings an ended session back.
/// * **An expired session does not exist**, from the very instant its time is up, whether or not something
///   has swept it away yet.
/// * **The owner is compared here**, in the same step as the look-up. To a stranger a session does not
///   exist, and a stranger's call changes nothing.
/// * **Absent is said only by what decides it.** A store that is away, slow, or reading from a replica that
///   may lag answers with an error, never with `None`: the layer turns `None` into a 404, which makes the
///   client throw its session away.
/// * **The layer owns the policy, the store owns the clock.** The layer hands over durations; the store adds
///   them to *its* now (the database's, not the caller's), so that nodes with wrong clocks agree.
/// * **Each verb is one atomic step**, and one round trip.
/// * **A verb may be cancelled** at any await point. It then took effect whole or not at all.
///
/// The [conformance suite](crate::conformance) (feature `conformance`) puts all this to the test.
///
/// # Cloning
///
/// The layer keeps one store in an [`Arc`]. A store that is itself [`Clone`] shares its sessions between clones.
///
/// # Wrapping
///
/// A store around another must forward *every* method, the provided ones too: put
/// `#[deny(clippy::missing_trait_methods)]` on its `impl`. A provided method may say "I cannot"; it never says
/// "no", so forgetting one costs a feature, not an answer.
///
/// # Errors
///
/// [`StoreErrorKind::Unavailable`] says that another try may succeed, and the layer tries again within its time
/// limit. All else it takes as it is. Every error is a 503 to the client.
///
/// # Implementing
///
/// Write plain `async fn`s:
///
/// ```
/// # use std::time::Duration;
/// # use mcp_session_layer::{*, store::*};
/// # struct MyStore;
/// impl SessionStore for MyStore {
///     async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
/// #       unimplemented!()
///     }
///     async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
/// #       unimplemented!()
///     }
///     async fn touch(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Result<Option<Found>, StoreError> {
/// #       unimplemented!()
///     }
///     async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
/// #       unimplemented!()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a session store",
    note = "`MemoryStore::new()` is one; a store chosen at run time goes into a `BoxSessionStore`"
)]
pub trait SessionStore: Send + Sync + 'static {
    /// Inserts a session if its id is free, within the limits of `terms`, atomically.
    ///
    /// The session then lives for the shortest of `terms.initial_idle`, `terms.idle` and `terms.life`, until
    /// its first [`touch`](Self::touch).
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect. The layer does not try again; it deletes.
    fn create(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send;

    /// Reads a session without extending it, `initialize` parameters included, whoever owns it.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    fn load(
        &self,
        id: &SessionId,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send;

    /// If the session is live and this owner's: lets it live for `idle` more, though not past the end of its
    /// life, and reads it. Otherwise changes nothing and answers `None`.
    ///
    /// A touch extends; it never shortens what is left.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send;

    /// Ends a session and says whether it was live. Of many at once exactly one hears `true`.
    ///
    /// Where the store has a feed, the end is announced there in the same step.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect.
    fn delete(
        &self,
        id: &SessionId,
        reason: EndReason,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// [`touch`](Self::touch), answered at once from this process's memory. Never blocks.
    ///
    /// Provided: "ask me with a future".
    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        let _ = (id, owner, idle);
        Now::Unknown
    }

    /// Makes nobody's session this owner's, as [`touch`](Self::touch) does besides: the login of a client
    /// that was anonymous. `None` unless the session is live, in the owner's scope, and nobody's, or already this
    /// owner's.
    ///
    /// Provided: "I cannot".
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or has no such verb ([`StoreErrorKind::Unsupported`]).
    fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        let _ = (id, owner, idle);
        std::future::ready(Err(StoreError::new(
            StoreErrorKind::Unsupported,
            "claim a session",
        )))
    }

    /// What lists, counts and ends sessions by owner and reference.
    ///
    /// Provided: "none".
    fn directory(&self) -> Option<&dyn Directory> {
        None
    }

    /// A new subscription to the explicit ends of sessions, wherever they were ended.
    ///
    /// Provided: "none". The nodes then find out by asking.
    fn feed(&self) -> Option<Feed> {
        None
    }
}

/// On what terms a session is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How long a session may be idle.
    pub idle: Duration,
    /// How long a session that has seen no request since its birth may be idle.
    pub initial_idle: Duration,
    /// How long a session may live, however busy it is. `None`: no limit.
    pub life: Option<Duration>,
    /// How many live sessions the scope may have. `None`: no limit.
    pub total: Option<NonZeroU64>,
    /// How many live sessions one principal may have in the scope. Nobody is not a principal. `None`: no limit.
    pub per_principal: Option<NonZeroU64>,
    /// What to do at a limit.
    pub at_limit: AtLimit,
    /// How long ago this birth began. If its owner's sessions were all ended since then, the newcomer is
    /// refused too.
    ///
    /// It is said at the call, and the store counts back from when it hears it: a birth that began on one node less
    /// than the way to the store before another node ended them all looks younger than that end, and may pass.
    pub started_ago: Duration,
}

/// What a store does with a newcomer for whom there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLimit {
    /// Refuse the newcomer.
    Refuse,
    /// End another: of a sample the one longest untouched, sessions without any request since their birth first.
    /// Refuse the newcomer if the sample holds none that may go.
    Evict {
        /// How long untouched a session must be to be ended for another. Longer than a beat of the keeper, so
        /// that no session in use ever is.
        untouched: Duration,
    },
}

/// What became of a birth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The session is live.
    New {
        /// How many more the scope has room for, if the store counts exactly.
        left: Option<u64>,
        /// The session that was ended to make room.
        evicted: Option<SessionRef>,
    },
    /// A session with this id is live already.
    Exists,
    /// There is no room.
    Full(Limit),
    /// All sessions of its owner were ended while this one was being born.
    Revoked,
}

/// A limit on the number of live sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Terms::total`].
    Total,
    /// [`Terms::per_principal`].
    PerPrincipal,
}

/// A live session, and what is left of its time at the moment of the answer.
#[derive(Debug, Clone)]
pub struct Found {
    /// The session.
    pub session: Session,
    /// How long ago it was born.
    pub age: Duration,
    /// How long it may still be idle; at most `life_left`.
    pub idle_left: Duration,
    /// How long it may still live. `None`: no limit.
    pub life_left: Option<Duration>,
}

/// The answer of [`SessionStore::touch_now`].
#[derive(Debug, Clone)]
pub enum Now {
    /// Live, this owner's, extended.
    Live(Found),
    /// Not live, or not this owner's.
    Absent,
    /// This process's memory does not know: call [`SessionStore::touch`].
    Unknown,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Its client sent a DELETE.
    Deleted,
    /// Somebody ended it through [`Sessions`](crate::Sessions).
    Revoked,
    /// It was idle for too long.
    Idle,
    /// It reached the end of its life.
    Lifetime,
    /// Another took its place at a limit.
    Evicted,
    /// The inner service no longer knew it.
    InnerGone,
}

impl EndReason {
    /// A short name, for labels, rows and messages between nodes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Revoked => "revoked",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Evicted => "evicted",
            Self::InnerGone => "inner_gone",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Deleted,
            Self::Revoked,
            Self::Idle,
            Self::Lifetime,
            Self::Evicted,
            Self::InnerGone,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A boxed future, for the traits here that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[deny(clippy::missing_trait_methods)]
impl<St: SessionStore> SessionStore for Arc<St> {
    fn create(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send {
        (**self).create(session, terms)
    }

    fn load(
        &self,
        id: &SessionId,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        (**self).load(id)
    }

    fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        (**self).touch(id, owner, idle)
    }

    fn delete(
        &self,
        id: &SessionId,
        reason: EndReason,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        (**self).delete(id, reason)
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        (**self).touch_now(id, owner, idle)
    }

    fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        (**self).claim(id, owner, idle)
    }

    fn directory(&self) -> Option<&dyn Directory> {
        (**self).directory()
    }

    fn feed(&self) -> Option<Feed> {
        (**self).feed()
    }
}
