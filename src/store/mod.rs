//! Where sessions are kept: the trait, and what its methods answer.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session},
};

mod answers;
mod boxed;
mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod end_reason;
mod error;
mod feed;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod replace;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod terms;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    answers::{Created, Expiry, Found, Now},
    boxed::BoxSessionStore,
    cached::CachedStore,
    directory::{Directory, SessionFilter, SessionInfo},
    end_reason::EndReason,
    error::{StoreError, StoreErrorKind},
    feed::{Feed, FeedEvent},
    memory::MemoryStore,
    terms::{AtLimit, Limit, Terms},
};

/// Where sessions are kept.
///
/// # Contract
///
/// * **`create` is the only insert.** No other method makes a session live, whatever races with it: nothing
///   brings an ended session back.
/// * **An expired session does not exist**, from the very instant its time is up, whether or not something
///   has swept it away yet.
/// * **The owner is compared here**, in the same step as the look-up. To any other owner a session does
///   not exist, and that owner's call changes nothing.
/// * **Absent is said only by what decides it.** A store that is away, slow, or reading from a replica that
///   may lag answers with an error, never with `None`: the layer turns `None` into a 404, which makes the
///   client throw its session away.
/// * **The layer owns the policy, the store owns the clock.** The layer hands over durations; the store adds
///   them to *its* now (the database's, not the caller's), so that nodes with wrong clocks agree.
/// * **At a limit only one goes, and only one that may**, in the order of [`AtLimit::Evict`]: for somebody else's no
///   principal's session does, and one in use never.
/// * **Each method is one atomic step**, and one round trip. A touch may read first and be over if nothing has to be
///   written; where something has, the write decides.
/// * **A call may be cancelled** at any await point. It then took effect whole or not at all.
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

    /// Does all that [`create`](Self::create) would do for this session but insert it: says whether there is room for it
    /// within the limits of `terms`, evicts another if it takes that, and leaves the room free.
    ///
    /// The layer asks before the inner service opens a session, whose id nobody knows yet: the id of this one is free.
    ///
    /// Provided: "I cannot".
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or does not support it ([`StoreErrorKind::Unsupported`]).
    fn make_room(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send {
        let _ = (session, terms);
        std::future::ready(Err(StoreError::new(
            StoreErrorKind::Unsupported,
            "make room for a session",
        )))
    }

    /// Reads a session without extending it, `initialize` parameters included, whoever owns it.
    ///
    /// `None` may be a touch too old: whether a session is over says [`expire`](Self::expire).
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

    /// As [`delete`](Self::delete), if at most `left` of the session's idle time is left. Otherwise changes nothing. It may
    /// have been touched since it was read: this decides, in the same step.
    ///
    /// Provided: "I cannot". The layer then reads and deletes.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect, or does not support it ([`StoreErrorKind::Unsupported`]).
    fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let _ = (id, left, reason);
        std::future::ready(Err(StoreError::new(
            StoreErrorKind::Unsupported,
            "delete an idle session",
        )))
    }

    /// If the session's time is up, or it is gone already: makes sure that it stays gone, and says so. Otherwise changes
    /// nothing, and reads it as [`load`](Self::load) does.
    ///
    /// This decides, where `load` only looks: a touch that extends the session in its last moment may not show yet when
    /// it is read. So `expire` waits for such a touch, in SQL by locking the row, and once it has said
    /// [`Over`](Expiry::Over) no touch finds the session any more. An expiry is not announced on the feed.
    ///
    /// Provided: "I cannot". The layer then takes no read for an end: what has ended elsewhere, and is not heard of on the
    /// feed, it deletes when its time has been up for longer than a touch takes.
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or does not support it ([`StoreErrorKind::Unsupported`]).
    fn expire(&self, id: &SessionId) -> impl Future<Output = Result<Expiry, StoreError>> + Send {
        let _ = id;
        std::future::ready(Err(StoreError::new(
            StoreErrorKind::Unsupported,
            "ask whether a session is over",
        )))
    }

    /// Changes the values of this owner's live session, all of them or none, and announces that on the feed. Answers the
    /// session with the values that it then has: they tell whether the change [holds](Change::holds), or was made for
    /// others ([`Change::only_while`]). Extends nothing.
    ///
    /// Provided: "I cannot".
    ///
    /// # Errors
    ///
    /// When the store cannot answer, when there would be too many values or too long ones
    /// ([`StoreErrorKind::TooLarge`]), or when it does not support it ([`StoreErrorKind::Unsupported`]).
    fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        let _ = (id, owner, change);
        std::future::ready(Err(StoreError::new(
            StoreErrorKind::Unsupported,
            "change a session's values",
        )))
    }

    /// [`touch`](Self::touch), answered at once from this process's memory. Never blocks.
    ///
    /// Provided: "ask me with a future".
    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        let _ = (id, owner, idle);
        Now::Unknown
    }

    /// Makes an anonymous session this owner's and touches it: the login of a client. `None` unless the session is
    /// live, in the owner's scope, and anonymous, or already this owner's.
    ///
    /// Provided: "I cannot".
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or does not support it ([`StoreErrorKind::Unsupported`]).
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

    /// Whether another process may be serving sessions of this store.
    ///
    /// Provided: "for all I know".
    fn is_shared(&self) -> bool {
        true
    }

    /// What lists, counts and ends sessions by owner and reference.
    ///
    /// Provided: "none".
    fn directory(&self) -> Option<&dyn Directory> {
        None
    }

    /// A new subscription to the explicit ends of sessions, and to changes of their owners and values, wherever they are made.
    ///
    /// Provided: "none". The nodes then find out by asking.
    fn feed(&self) -> Option<Feed> {
        None
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

    fn make_room(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send {
        (**self).make_room(session, terms)
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

    fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        (**self).delete_idle(id, left, reason)
    }

    fn expire(&self, id: &SessionId) -> impl Future<Output = Result<Expiry, StoreError>> + Send {
        (**self).expire(id)
    }

    fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> impl Future<Output = Result<Option<Found>, StoreError>> + Send {
        (**self).change(id, owner, change)
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

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn directory(&self) -> Option<&dyn Directory> {
        (**self).directory()
    }

    fn feed(&self) -> Option<Feed> {
        (**self).feed()
    }
}
