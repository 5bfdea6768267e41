//! Which sessions rmcp holds here, and which are being restored.

use std::sync::Arc;

use hashbrown::HashMap;
use http::StatusCode;
use rmcp::transport::streamable_http_server::SessionId as RmcpId;
use tokio::sync::watch;

use super::events::{EventKey, Tagger};
use crate::{
    protocol::{RejectionKind, SessionId},
    sync::RwLock,
};

pub(super) struct Places {
    places: RwLock<HashMap<RmcpId, Place, foldhash::fast::RandomState>>,
    /// Where events are kept in a store; otherwise each session has its own way to name them.
    event_key: RwLock<Option<EventKey>>,
}

#[derive(Clone)]
pub(super) enum Place {
    /// It is served.
    Here(Arc<Tagger>),
    /// Somebody restores it. The outcome comes.
    Restoring(watch::Receiver<Option<Outcome>>),
}

/// What became of restoring a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Restored,
    /// The request is not one that rmcp serves. Another one of the session may be.
    Refused,
    /// The client is told this.
    Rejected(RejectionKind),
    /// The service could not take it up again.
    Failed(StatusCode),
}

impl Outcome {
    pub(super) const BROKEN: Self = Self::Failed(StatusCode::INTERNAL_SERVER_ERROR);
}

/// What a request finds that may restore its session.
pub(super) enum Arrival {
    Here,
    /// Another request does it already.
    Restoring(watch::Receiver<Option<Outcome>>),
    /// It is this one's turn. Nobody else gets it before this is dropped.
    Turn(Turn),
}

impl Places {
    pub(super) fn new(event_key: Option<EventKey>) -> Arc<Self> {
        Arc::new(Self {
            places: RwLock::default(),
            event_key: RwLock::new(event_key),
        })
    }

    /// For the sessions to come, if events are kept in a store.
    pub(super) fn set_event_key(&self, key: EventKey) {
        if let Some(event_key) = &mut *self.event_key.write() {
            *event_key = key;
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Place> {
        self.places.read().get(id).cloned()
    }

    /// Whether a request may go on at once.
    pub(super) fn is_here(&self, id: &str) -> bool {
        matches!(self.places.read().get(id), Some(Place::Here(_)))
    }

    pub(super) fn tagger(&self, id: &str) -> Option<Arc<Tagger>> {
        match self.places.read().get(id) {
            Some(Place::Here(tagger)) => Some(Arc::clone(tagger)),
            _ => None,
        }
    }

    pub(super) fn arrive(self: &Arc<Self>, id: &str) -> Arrival {
        let mut places = self.places.write();
        match places.get(id) {
            Some(Place::Here(_)) => return Arrival::Here,
            Some(Place::Restoring(outcome)) => return Arrival::Restoring(outcome.clone()),
            None => {}
        }
        let id = RmcpId::from(id);
        let (tell, outcome) = watch::channel(None);
        places.insert(id.clone(), Place::Restoring(outcome));
        Arrival::Turn(Turn {
            places: Arc::clone(self),
            id,
            tell,
            outcome: Outcome::BROKEN,
        })
    }

    /// rmcp has a new session.
    pub(super) fn enter(&self, id: &RmcpId) {
        if let Some(place) = self.here(id) {
            self.places.write().insert(id.clone(), place);
        }
    }

    /// rmcp has it no more. What is being restored is not there yet.
    pub(super) fn leave(&self, id: &str) {
        let mut places = self.places.write();
        if matches!(places.get(id), Some(Place::Here(_))) {
            places.remove(id);
        }
    }

    fn here(&self, id: &str) -> Option<Place> {
        let session = id.parse::<SessionId>().ok()?.reference();
        let tagger = match &*self.event_key.read() {
            Some(key) => Tagger::with_key(session, key.clone()),
            None => Tagger::of_incarnation(session),
        };
        Some(Place::Here(Arc::new(tagger)))
    }
}

/// The turn to restore a session. When it is dropped the outcome is told, and the next one may try.
pub(super) struct Turn {
    places: Arc<Places>,
    id: RmcpId,
    tell: watch::Sender<Option<Outcome>>,
    pub(super) outcome: Outcome,
}

impl Turn {
    pub(super) fn id(&self) -> &RmcpId {
        &self.id
    }

    pub(super) fn outcome(&self) -> watch::Receiver<Option<Outcome>> {
        self.tell.subscribe()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let here = match self.outcome {
            Outcome::Restored => self.places.here(&self.id),
            _ => None,
        };
        let mut places = self.places.places.write();
        match here {
            Some(here) => places.insert(self.id.clone(), here),
            None => places.remove(&self.id),
        };
        drop(places);
        self.tell.send_replace(Some(self.outcome));
    }
}
