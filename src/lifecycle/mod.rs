//! How sessions are created, kept and ended, and how the inner service is notified of it.
//!
//! `create`, `terminate` and `keeper` are the ways into and out of a session's life; the rest is what they need. Imports
//! `registry`, `store`, `session` and `protocol`; does not know tower.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, request::Parts};
use tokio::sync::mpsc;
use tracing::Level;

use self::{
    admission::Admission, buffered::BodyBudget, discard::Discards, events::Events,
    keeper::KeeperStart, marked::Marked, notices::Notices, notify::Notifier, question::Questions,
};
pub(crate) use self::{
    background::Background,
    bounded_store::BoundedStore,
    buffered::{BODY_BUDGET, Buffered, ReadEnd},
    create::{Creation, InitializeParams},
    forwarded::Forwarded,
    settings::Settings,
};
pub use self::{
    events::{SessionEvent, SessionEvents},
    rates::{CreationRate, CreationRates},
    signed_ids::SigningKeys,
};
use crate::{
    metrics,
    protocol::{
        Rejection,
        rejection::{self, Spare},
    },
    registry::Registry,
    session::{Issuer, Session},
    store::BoxSessionStore,
    sync::atomic::AtomicBool,
};

mod admission;
mod admit;
pub(crate) mod answer;
pub(crate) mod background;
mod bounded_store;
mod buffered;
mod create;
pub(crate) mod delete;
mod delivery;
mod discard;
mod events;
pub(crate) mod forgotten;
mod forwarded;
mod issued;
pub(crate) mod keeper;
mod marked;
mod notices;
mod notify;
mod over;
#[cfg(all(test, shuttle))]
mod permutations;
mod question;
mod rates;
mod settings;
pub(crate) mod shutdown;
mod signed_ids;
mod strip;
pub(crate) mod terminate;
mod trace;

/// A layer's settings, its store and what it has alive. Clones share all but the settings.
#[derive(Clone)]
pub(crate) struct Lifecycle {
    pub(crate) settings: Settings,
    pub(crate) store: BoundedStore,
    pub(crate) alive: Arc<Alive>,
}

/// What is alive in this process for one layer.
pub(crate) struct Alive {
    pub(crate) registry: Registry,
    pub(crate) events: Events,
    pub(crate) body_budget: BodyBudget,
    pub(crate) background: Background,
    /// No session is created any more.
    pub(crate) is_draining: AtomicBool,
    /// Sessions that the inner service seems to have forgotten.
    pub(crate) marked: Marked,
    admission: Admission,
    notices: Notices,
    discards: Discards,
    notifier: Notifier,
    questions: Questions,
    keeper: KeeperStart,
}

impl Lifecycle {
    pub(crate) fn new(store: BoxSessionStore) -> Self {
        let (wake, woken) = mpsc::unbounded_channel();
        let settings = Settings::default();
        let registry = Registry::new(wake);
        registry.tracker.set_idle(settings.idle);
        let body_budget = BodyBudget::default();
        Self {
            settings,
            store: BoundedStore::new(store),
            alive: Arc::new(Alive {
                registry,
                events: Events::new(),
                notifier: Notifier::new(body_budget.clone()),
                body_budget,
                background: Background::default(),
                is_draining: AtomicBool::new(false),
                marked: Marked::default(),
                admission: Admission::default(),
                notices: Notices::default(),
                discards: Discards::default(),
                questions: Questions::default(),
                keeper: KeeperStart::new(woken),
            }),
        }
    }

    /// The answer that a refusal is.
    pub(crate) fn answer(&self, rejection: Rejection) -> Response<Body> {
        tracing::debug!(reason = rejection.kind().as_str(), "refused a request");
        self.render(rejection, Spare::default())
    }

    /// Refuses a request: the answer now, the rest of its body swallowed meanwhile.
    pub(crate) fn refuse(
        &self,
        rejection: Rejection,
        head: &mut Parts,
        body: Body,
    ) -> Response<Body> {
        if tracing::enabled!(Level::DEBUG) {
            trace::refusal(rejection.kind(), head, &self.settings);
        }
        self.discard(head, body);
        self.render(rejection, Spare::of(head))
    }

    /// Swallows what is left of a request's body.
    pub(crate) fn discard(&self, parts: &Parts, body: Body) {
        self.alive.discards.swallow(&parts.headers, body);
    }

    fn render(&self, rejection: Rejection, spare: Spare) -> Response<Body> {
        metrics::request_refused(rejection.kind().as_str());
        rejection::respond(rejection, self.settings.renderer.as_ref(), spare)
    }

    /// Whether the inner service knows a session by its id.
    #[inline]
    pub(crate) fn inner_knows(&self, session: &Session) -> bool {
        session.issuer() == Issuer::Inner || self.settings.forwards_issued
    }
}
