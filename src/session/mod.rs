//! What a session is, and the values a node keeps beside it.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

mod owner;
pub(crate) mod stream;

pub use self::owner::{Owner, Principal, Scope};
use crate::protocol::{ClientInfo, SessionId, SessionRef};

/// A live session: a cheap handle that the layer puts into the extensions of each request it lets through.
///
/// In an axum handler take it as an argument; elsewhere `request.extensions().get::<Session>()`.
///
/// It holds no instants: how old a session is, and how long it has left, only its store's clock can say.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    id: SessionId,
    reference: SessionRef,
    record: SessionRecord,
    locals: Arc<Locals>,
}

/// What a store keeps of a session besides its key and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Whom the session belongs to.
    pub owner: Owner,
    /// Who made its id.
    pub issuer: Issuer,
    /// The client, as it named itself in `initialize`.
    pub client: Option<ClientInfo>,
    /// The protocol version that the client *requested* in `initialize`; the negotiated one may be lower.
    pub protocol_version: Option<String>,
    /// The `params` of `initialize` as raw JSON, if they are kept. [`touch`](crate::SessionStore::touch)
    /// need not return them, [`load`](crate::SessionStore::load) must.
    pub initialize_params: Option<Bytes>,
}

impl SessionRecord {
    /// A record of which nothing but the owner and the issuer is known.
    #[must_use]
    pub fn new(owner: Owner, issuer: Issuer) -> Self {
        Self {
            owner,
            issuer,
            client: None,
            protocol_version: None,
            initialize_params: None,
        }
    }
}

/// Who made a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Issuer {
    /// The inner service: it knows the session by this id.
    Inner,
    /// This layer, because the inner service issued none.
    Layer,
}

impl Session {
    /// Puts together what a store kept under this id.
    #[must_use]
    pub fn new(id: SessionId, record: SessionRecord) -> Self {
        let reference = id.reference();
        Self(Arc::new(Inner {
            id,
            reference,
            record,
            locals: Arc::default(),
        }))
    }

    /// The same session, node-local values included, with another record.
    #[must_use]
    pub fn with_record(&self, record: SessionRecord) -> Self {
        Self(Arc::new(Inner {
            id: self.0.id.clone(),
            reference: self.0.reference,
            record,
            locals: Arc::clone(&self.0.locals),
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
        self.0.record.clone()
    }

    /// Whom the session belongs to.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.record.owner
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
        self.0.locals.get()
    }

    /// Drops the node-local values and keeps no new ones. For the end of the session.
    pub(crate) fn drop_locals(&self) {
        // Dropped outside the lock: a value's `drop` may ask for another value.
        let values = self.0.locals.0.lock().take_for_good();
        drop(values);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("reference", &self.0.reference)
            .field("record", &self.0.record)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Locals(Mutex<Values>);

enum Values {
    Open(HashMap<TypeId, Arc<dyn Any + Send + Sync>>),
    Ended,
}

impl Locals {
    fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        if let Values::Open(values) = &*self.0.lock()
            && let Some(value) = values.get(&TypeId::of::<T>())
        {
            return downcast(value);
        }
        // Made outside the lock: `T::default` is the application's code. Of two made at once the first stays.
        let made = Arc::new(T::default());
        match &mut *self.0.lock() {
            Values::Open(values) => downcast(values.entry(TypeId::of::<T>()).or_insert(made)),
            Values::Ended => made,
        }
    }
}

impl Values {
    fn take_for_good(&mut self) -> Self {
        std::mem::replace(self, Self::Ended)
    }
}

impl Default for Values {
    fn default() -> Self {
        Self::Open(HashMap::new())
    }
}

fn downcast<T: Send + Sync + 'static>(value: &Arc<dyn Any + Send + Sync>) -> Arc<T> {
    Arc::clone(value)
        .downcast()
        .expect("values are kept under their own type")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Scope;

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
        assert_eq!(*session.local::<Mutex<u32>>().lock(), 1);
    }

    #[test]
    fn a_local_value_is_dropped_at_the_end_and_not_kept_after_it() {
        let session = session();
        let before = Arc::downgrade(&session.local::<String>());
        session.drop_locals();
        assert!(before.upgrade().is_none());
        let after = Arc::downgrade(&session.local::<String>());
        assert!(after.upgrade().is_none());
    }
}
