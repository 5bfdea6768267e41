//! A request on a live session, from before the inner service sees it until its answer.

use std::sync::Arc;

use http::{HeaderValue, request::Parts};

use super::{Lifecycle, question, signed_ids::WireId};
use crate::{
    protocol::{Credentials, SESSION_ID},
    session::{InFlight, InnerContext, Route, Session, StreamKind, Upstream},
};

/// What the answer to a request on a session is judged by.
pub(crate) struct Forwarded {
    pub(super) in_flight: InFlight,
    pub(super) kind: StreamKind,
    pub(super) credentials: Credentials,
    /// Where it went, if that is not where the inner service served the session last.
    unserved: Option<Arc<Route>>,
    /// The id that it came with, if that had a tag.
    wire_id: Option<Box<WireId>>,
}

impl Forwarded {
    /// Prepares a request for the inner service. `digest` names its route. `credentials` are what its head has said of them,
    /// if that was all.
    #[inline(always)]
    pub(crate) fn prepare(
        lifecycle: &Lifecycle,
        in_flight: InFlight,
        parts: &mut Parts,
        digest: u64,
        credentials: Option<Credentials>,
        upstream: &Arc<Upstream>,
    ) -> Self {
        let session = in_flight.session();
        if !lifecycle.inner_knows(session) {
            parts.headers.remove(&SESSION_ID);
        }
        let mut unserved = None;
        if !session.is_routed(digest) || !upstream.is_noted(digest) {
            unserved = other_route(lifecycle, session, parts, digest, upstream);
        }
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => lifecycle.settings.credentials_of(parts),
        };
        let wire_id = match lifecycle.settings.signed_ids {
            Some(_) => parts.extensions.remove().map(Box::new),
            None => None,
        };
        parts.extensions.insert(session.clone());
        Self {
            kind: StreamKind::of(&parts.method),
            in_flight,
            credentials,
            unserved,
            wire_id,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        self.in_flight.session()
    }

    /// The id as its client knows it.
    pub(super) fn wire_id(&self) -> HeaderValue {
        match self.wire_id.as_deref() {
            Some(WireId(wire)) => wire.clone(),
            None => self.session().id().to_header(),
        }
    }

    /// It was not answered at once.
    pub(crate) fn waited(&mut self) {
        self.in_flight.waited();
    }

    /// Where it went.
    pub(super) fn route(&self) -> Option<Arc<Route>> {
        self.unserved.clone().or_else(|| self.session().route())
    }

    /// The inner service has served it, so it knows the session, and it did so there.
    #[inline]
    pub(super) fn served(&mut self, lifecycle: &Arc<Lifecycle>) {
        if let Some(route) = self.unserved.take() {
            self.session().note_route(route);
        }
        let state = self.session().state();
        if !state.now().is_served_and_unmarked() {
            self.served_anew(lifecycle);
        }
    }

    /// For the first time on this node, or after it seemed to be forgotten.
    #[cold]
    fn served_anew(&mut self, lifecycle: &Arc<Lifecycle>) {
        let session = self.session().clone();
        let before = session.state().serve();
        if before.is_marked() {
            lifecycle.alive.marked.remove(&session);
            session.doubts().forget_verdict();
        }
        if !before.is_served() {
            let credentials = std::mem::take(&mut self.credentials);
            question::try_out(lifecycle, session, credentials);
        }
    }
}

/// A route that is not the session's, or that no other request will have. The first one on this node is the session's at
/// once: whoever ends the session must know where to tell the inner service.
#[cold]
fn other_route(
    lifecycle: &Lifecycle,
    session: &Session,
    parts: &Parts,
    digest: u64,
    upstream: &Arc<Upstream>,
) -> Option<Arc<Route>> {
    let routes = &lifecycle.alive.registry.routes;
    let route = routes.get(digest, &parts.uri, &parts.headers, upstream);
    let own = lifecycle.settings.own_route(&route, parts);
    if session.is_routed(digest) {
        return own;
    }
    if session.route().is_some() {
        return own.or(Some(route));
    }
    // Nothing of a request is kept before it is served.
    let first = match &own {
        Some(_) => Arc::new(route.with_context(InnerContext::new())),
        None => route,
    };
    if session.note_route(first) {
        lifecycle.notify_inner(session);
    }
    own
}
