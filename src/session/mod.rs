//! What a session is: its id, owner and record, and beside them what this node knows of it while it lives: its times,
//! its uses, its streams and its local values.
//!
//! The handle is the live state: what a store finds is what the handler gets. Imports `protocol` only.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use self::{locals::Locals, record::Details};
use crate::{
    protocol::{SessionId, SessionRef},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

mod context;
mod doubts;
mod in_flight;
mod locals;
mod owner;
#[cfg(all(test, shuttle))]
mod permutations;
mod record;
mod route;
mod state;
mod stream;
mod table;
pub(crate) mod times;
mod upstream;
mod values;

pub use self::{
    context::InnerContext,
    owner::{Owner, Principal, Scope},
    record::{Issuer, SessionRecord},
    values::{Change, Values, ValuesTooLarge},
};
pub(crate) use self::{
    doubts::{Doubts, Verdict},
    in_flight::{Counted, CutWaiter, InFlight, StreamKind, Tracker, Wake},
    route::Route,
    state::{RegistryId, State},
    stream::{Stream, watch},
    table::Table,
    times::Times,
    upstream::{Trial, Upstream},
};

/// A live session: a cheap handle that the layer puts into the extensions of each request it lets through.
///
/// In an axum handler take it as an argument; elsewhere `request.extensions().get::<Session>()`.
///
/// How old a session is, and how long it has left, only its store's clock can say.
#[derive(Clone)]
pub struct Session(Arc<Node>);

/// In the order in which a request looks at it, and in as few lines of memory.
#[repr(C)]
struct Node {
    state: State,
    times: Times,
    /// Of `attached.route`: zero without one, or if it is the session's alone.
    route_digest: AtomicU64,
    id: SessionId,
    /// As it was created.
    owner: Owner,
    /// Who has claimed it since.
    claimed: OnceLock<Box<Owner>>,
    details: Details,
    reference: SessionRef,
    /// With which credentials it was created on this node: their digest, zero if it was not.
    creator: AtomicU64,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    /// Where the inner service saw it last.
    route: Option<Arc<Route>>,
    values: Values,
    /// Most sessions have none of it most of the time.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    locals: Locals,
    /// Each knows its place.
    streams: Vec<Arc<Stream>>,
    doubts: Option<Arc<Doubts>>,
}

impl Session {
    /// Puts together what a store kept under this id.
    #[must_use]
    pub fn new(id: SessionId, mut record: SessionRecord) -> Self {
        let values = std::mem::take(&mut record.values);
        Self(Arc::new(Node {
            state: State::default(),
            times: Times::new(),
            route_digest: AtomicU64::new(0),
            reference: id.reference(),
            id,
            owner: record.owner.clone(),
            claimed: OnceLock::new(),
            details: Details::of(record),
            creator: AtomicU64::new(0),
            attached: Mutex::new(Attached {
                values,
                ..Attached::default()
            }),
        }))
    }

    /// The id, which is a secret. To name the session anywhere, use its [`reference`](Self::reference).
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.0.id
    }

    /// The public name of this session, for logs and lists.
    #[must_use]
    pub fn reference(&self) -> &SessionRef {
        &self.0.reference
    }

    /// What the store keeps of this session.
    #[must_use]
    pub fn record(&self) -> SessionRecord {
        self.0.details.record(self.owner().clone(), self.values())
    }

    /// Whom the session belongs to.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        self.0.claimed.get().map_or(&self.0.owner, |owner| owner)
    }

    /// Who made its id.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        self.0.details.issuer
    }

    /// A value of this type that belongs to this session on this node, made on first use.
    ///
    /// It is dropped when the session ends, so that a map of your own, which would grow for ever, is not
    /// needed. It is not shared between nodes and does not survive a restart.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use mcp_session_layer::Session;
    ///
    /// #[derive(Default)]
    /// struct Calls(AtomicU64);
    ///
    /// async fn handler(session: Session) -> String {
    ///     let calls = session.local::<Calls>();
    ///     format!("call {} of this session", 1 + calls.0.fetch_add(1, Ordering::Relaxed))
    /// }
    /// ```
    #[must_use]
    pub fn local<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        if let Some(more) = &self.0.attached.lock().more
            && let Some(value) = more.locals.get()
        {
            return value;
        }
        // Made outside the lock: `T::default` is the application's code.
        let made = Arc::new(T::default());
        let mut attached = self.0.attached.lock();
        if self.has_ended() {
            return made;
        }
        attached.more().locals.get_or_insert(made)
    }

    /// The protocol version that its client last named, or else the one that it asked for.
    pub(crate) fn protocol_version(&self) -> Option<String> {
        let route = self.route();
        let named = route.as_deref().and_then(Route::version);
        named
            .map(str::to_owned)
            .or_else(|| self.record().protocol_version)
    }

    pub(crate) fn state(&self) -> &State {
        &self.0.state
    }

    pub(crate) fn times(&self) -> &Times {
        &self.0.times
    }

    /// Notes that it was created on this node, with these credentials.
    pub(crate) fn note_creator(&self, credentials: u64) {
        self.0.creator.store(credentials, Relaxed);
    }

    /// Zero if it was not created on this node.
    pub(crate) fn creator(&self) -> u64 {
        self.0.creator.load(Relaxed)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.state.now().has_ended()
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.0.state.now().uses() > 0
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.0.claimed.get().is_some()
    }

    /// Whether this is the very same handle.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Another handle of the same session, which shares no state with this one.
    pub(crate) fn twin(&self) -> Self {
        Self::new(self.0.id.clone(), self.record())
    }

    /// Makes an anonymous session this owner's, for good, and ends the streams that were opened before: what was
    /// opened anonymously is not the new owner's. `false` if it is another's.
    pub(crate) fn claim(&self, owner: &Owner) -> bool {
        if self.owner() == owner {
            return true;
        }
        let is_anonymous = self.0.owner.principal.is_none() && self.0.owner.scope == owner.scope;
        let claimed = is_anonymous && self.0.claimed.set(Box::new(owner.clone())).is_ok();
        if claimed {
            self.end_streams(|_| true);
        }
        claimed || self.owner() == owner
    }

    /// Ends it on this node: its streams end, its local values are dropped. `false` if it had ended before.
    pub(crate) fn end(&self) -> bool {
        let ends = self.0.state.end();
        // Dropped outside the lock: a value's `drop` is the application's code, and may ask for another value.
        let more = self.0.attached.lock().more.take();
        for stream in more.iter().flat_map(|more| &more.streams) {
            stream.end();
        }
        ends
    }

    /// Ends the streams that `which` picks. The session goes on.
    pub(crate) fn end_streams(&self, which: impl Fn(StreamKind) -> bool) {
        let picked: Vec<_> = match &self.0.attached.lock().more {
            Some(more) => more
                .streams
                .iter()
                .filter(|stream| which(stream.kind()))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        // Each takes itself off the list when whoever reads it drops it.
        for stream in picked {
            stream.end();
        }
    }

    /// What there is to its end, if it is in doubt.
    pub(crate) fn doubts(&self) -> Arc<Doubts> {
        let mut attached = self.0.attached.lock();
        if self.has_ended() {
            return Arc::default();
        }
        Arc::clone(attached.more().doubts.get_or_insert_default())
    }

    /// Whether its last request came this way too.
    #[inline]
    pub(crate) fn is_routed(&self, digest: u64) -> bool {
        self.0.route_digest.load(Relaxed) == digest
    }

    /// Notes where the inner service sees the session, and answers whether the session had ended before this was noted.
    pub(crate) fn note_route(&self, route: Arc<Route>) -> bool {
        let digest = route.digest();
        let mut attached = self.0.attached.lock();
        let before = attached.route.replace(route);
        self.0.route_digest.store(digest, Relaxed);
        drop(attached);
        drop(before);
        self.has_ended()
    }

    /// Where the inner service saw it last.
    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        self.0.attached.lock().route.clone()
    }

    pub(crate) fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }
}

impl Attached {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("reference", &self.0.reference)
            .field("record", &self.record())
            .finish_non_exhaustive()
    }
}

/// A session that somebody will look at again, if it is still there.
pub(crate) struct WeakSession(Weak<Node>);

impl WeakSession {
    pub(crate) fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let owner = Owner {
            scope: Scope::default(),
            principal: None,
        };
        Session::new(SessionId::issue(), SessionRecord::new(owner, Issuer::Layer))
    }

    #[test]
    fn a_local_value_is_made_once_and_shared_by_clones() {
        let session = session();
        *session.local::<Mutex<u32>>().lock() += 1;
        assert_eq!(*session.clone().local::<Mutex<u32>>().lock(), 1);
    }

    #[test]
    fn a_local_value_is_dropped_at_the_end_and_not_kept_after_it() {
        let session = session();
        let before = Arc::downgrade(&session.local::<String>());
        session.end();
        assert!(before.upgrade().is_none());
        let after = Arc::downgrade(&session.local::<String>());
        assert!(after.upgrade().is_none());
    }

    #[test]
    fn a_session_is_claimed_once_and_only_if_it_is_anonymous() {
        let owner = |name| Owner {
            scope: Scope::default(),
            principal: Some(Principal::new(name)),
        };
        let session = session();
        assert!(session.claim(&owner("a")) && session.claim(&owner("a")));
        assert!(!session.claim(&owner("b")));
        assert_eq!(session.owner(), &owner("a"));
        assert!(session.record().owner == owner("a"));
    }

    #[test]
    fn older_values_do_not_undo_newer_ones() {
        let session = session();
        let old = session.twin();
        let change = Change::new().set("a", "1");
        assert!(session.change_values(&change).unwrap());
        assert!(!session.change_values(&change).unwrap());
        session.note_values(&old);
        assert_eq!(session.values().get("a"), Some("1"));
        old.note_values(&session);
        assert_eq!(old.values().get("a"), Some("1"));
    }

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Node>() <= 248, "{}", size_of::<Node>());
    }
}
