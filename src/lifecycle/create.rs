//! Creating a session: what is known before is refused before the inner service is called; what it answers is recorded
//! before the client sees it.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Response, header::CONTENT_TYPE, request::Parts};
use tokio::time::Instant;

use super::{
    Buffered, Lifecycle, ReadEnd, SessionEvent,
    admission::Slot,
    delivery::watch_delivery,
    forgotten::make_room,
    issued::{Issued, issued},
    strip::strip_ids,
    terminate::{announce_replaced, delete_in_background},
};
use crate::{
    protocol::{
        AnswerHead, ClientInfo, Rejection, RejectionKind, SESSION_ID, SessionId,
        message::{Answer, Message},
    },
    session::{self, Issuer, Owner, Route, Session, SessionRecord, StreamKind, Values},
    store::{Created, EndReason, Found, Limit},
    sync::atomic::Ordering::Relaxed,
};

/// What an `initialize` request said of its client.
#[derive(Default)]
pub(crate) struct InitializeParams {
    client: Option<ClientInfo>,
    protocol_version: Option<String>,
    raw: Option<Bytes>,
}

impl InitializeParams {
    /// `keeps_raw`: with the raw parameters, for a restore.
    pub(crate) fn of(message: &Message<'_>, keeps_raw: bool) -> Self {
        let (client, protocol_version) = message.introduction();
        let raw = message.params().filter(|_| keeps_raw);
        Self {
            client,
            protocol_version,
            raw: raw.map(|raw| raw.get().to_owned().into()),
        }
    }
}

/// A request whose answer may open a session, from before the inner service sees it.
pub(crate) struct Creation {
    lifecycle: Arc<Lifecycle>,
    started: Instant,
    route: Arc<Route>,
    owner: Owner,
    values: Values,
    credentials: u64,
    /// `None` if the request was not read.
    params: Option<InitializeParams>,
    /// The id to issue if the inner service issues none.
    spare_id: SessionId,
    /// Its place within the limits, until the store has it.
    slot: Option<Slot>,
}

impl Creation {
    /// Begins, unless it is known to fail.
    ///
    /// # Errors
    ///
    /// Why the request is refused. The inner service is not called then.
    pub(crate) async fn begin(
        lifecycle: &Arc<Lifecycle>,
        head: &Parts,
        route: Arc<Route>,
        params: Option<InitializeParams>,
    ) -> Result<Self, Rejection> {
        // Before it is asked who the caller is: what is revoked from here on is not this session's to have.
        let started = Instant::now();
        let settings = &lifecycle.settings;
        let owner = settings.caller(head).map_err(Rejection::new)?;
        let values = settings.values(head).map_err(Rejection::new)?;
        let mut creation = Self {
            started,
            route,
            owner,
            values,
            credentials: lifecycle.digest_of(head),
            spare_id: SessionId::issue(),
            lifecycle: Arc::clone(lifecycle),
            params,
            slot: None,
        };
        // A request that was not read may be anything: it is let in, and a session refused afterwards.
        if creation.params.is_some() {
            let asked = (started, &creation.spare_id);
            creation.slot = Some(lifecycle.admit(head, &creation.owner, asked).await?);
        }
        Ok(creation)
    }

    /// Makes of the inner service's answer what the client gets: if it opened a session, only after the store has it.
    pub(crate) async fn record(mut self, mut response: Response<Body>) -> Response<Body> {
        let answer = if response.status().is_success() {
            self.look_at(&mut response).await
        } else {
            Answer::Error
        };
        if matches!(
            answer,
            Answer::Error | Answer::AnonymousError | Answer::Broken
        ) {
            self.strip(&mut response);
            return response;
        }
        let (id, issuer) = match issued(response.headers()) {
            Issued::One(id) => (id, Issuer::Inner),
            Issued::None if answer == Answer::Result && self.params.is_some() => {
                self.lifecycle
                    .alive
                    .admission
                    .say_that_ids_are_issued_here();
                (self.spare_id.clone(), Issuer::Layer)
            }
            Issued::None => {
                if self.params.is_some() {
                    let content_type = response.headers().get(CONTENT_TYPE);
                    let admission = &self.lifecycle.alive.admission;
                    admission.say_that_none_is_opened(content_type);
                }
                return response;
            }
            Issued::IllFormed => {
                tracing::error!("the inner service issued an ill-formed session id");
                self.strip(&mut response);
                return self.refuse(RejectionKind::InvalidInnerId);
            }
        };
        let values = self.values.with(response.extensions().get());
        let is_too_much = values.is_err();
        let session = self.session(id, issuer, values.unwrap_or_default());
        if is_too_much {
            tracing::error!(session = %session.reference(), "a new session was to get too many values, or too long ones");
            self.roll_back(&session);
            return self.refuse(RejectionKind::ValuesFailed);
        }
        let created = self.create(&session).await;
        // From here on the store counts it.
        self.slot = None;
        match created {
            Ok(()) => self.release(&session, response),
            Err(rejection) => self.lifecycle.answer(rejection),
        }
    }

    /// Refuses what the inner service has answered already. The session that it opened, if any, is ended there.
    pub(crate) fn abandon(
        &self,
        mut response: Response<Body>,
        kind: RejectionKind,
    ) -> Response<Body> {
        self.strip(&mut response);
        self.refuse(kind)
    }

    fn session(&mut self, id: SessionId, issuer: Issuer, values: Values) -> Session {
        let params = self.params.take().unwrap_or_default();
        let record = SessionRecord {
            owner: self.owner.clone(),
            issuer,
            client: params.client,
            protocol_version: params.protocol_version,
            initialize_params: params.raw,
            values,
        };
        Session::new(id, record)
    }

    /// Whether a successful answer holds a result.
    async fn look_at(&self, response: &mut Response<Body>) -> Answer {
        let head = AnswerHead::read(response.headers());
        if head.is_event_stream {
            return Answer::Result;
        }
        if !head.is_plain_json {
            return Answer::Other;
        }
        let mut body = Buffered::new(std::mem::take(response.body_mut()));
        let answer = match body.read(&self.lifecycle.alive.body_budget).await {
            ReadEnd::Complete => Answer::read(body.bytes()),
            // Errors are short.
            ReadEnd::TooLong | ReadEnd::TooSlow | ReadEnd::OverBudget => Answer::Result,
            ReadEnd::Broken => Answer::Broken,
        };
        *response.body_mut() = body.into_body();
        answer
    }

    /// Records the session. After an error no session is left anywhere, or will be soon.
    async fn create(&self, session: &Session) -> Result<(), Rejection> {
        let Lifecycle {
            settings,
            store,
            alive,
        } = &*self.lifecycle;
        if alive.is_draining.load(Relaxed) {
            self.roll_back(session);
            return Err(Rejection::new(RejectionKind::Draining));
        }
        // Before the store has it: an end that is heard from here on is this one's.
        alive.registry.forget_end(session.reference());
        let terms = settings.terms(&self.owner, self.started.elapsed());
        let mut created = store.create(session, &terms).await;
        if let Ok(Created::Full(limit)) = created
            && make_room(&self.lifecycle, limit, &self.owner).await
        {
            created = store.create(session, &terms).await;
        }
        match created {
            Ok(Created::New { evicted, .. }) => {
                self.lifecycle.note_evicted(&self.owner, evicted);
                if alive.admission.is_revoked(&self.owner, self.started) {
                    let id = session.id().clone();
                    delete_in_background(&self.lifecycle, id, EndReason::Revoked);
                    self.roll_back(session);
                    return Err(Rejection::new(RejectionKind::Revoked));
                }
                Ok(())
            }
            Ok(Created::Exists) => {
                // Whoever holds the session of that id keeps it.
                tracing::error!(session = %session.reference(), "the inner service issued a session id twice");
                Err(Rejection::new(RejectionKind::InvalidInnerId))
            }
            Ok(Created::Full(limit)) => {
                if limit == Limit::Total {
                    alive.admission.close(&self.owner);
                }
                self.roll_back(session);
                Err(self.lifecycle.full(limit))
            }
            Ok(Created::Revoked) => {
                self.roll_back(session);
                Err(Rejection::new(RejectionKind::Revoked))
            }
            Err(error) => {
                tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not record a session");
                let id = session.id().clone();
                delete_in_background(&self.lifecycle, id, EndReason::Revoked);
                self.roll_back(session);
                Err(Rejection::new(RejectionKind::StoreUnavailable))
            }
        }
    }

    /// Hands out the answer with the recorded id.
    fn release(&self, session: &Session, mut response: Response<Body>) -> Response<Body> {
        tracing::debug!(session = %session.reference(), client = ?session.record().client, "a session is created");
        let id = self.lifecycle.settings.id_header(&self.owner, session.id());
        response.headers_mut().insert(&SESSION_ID, id);
        let terms = self.lifecycle.settings.terms(&self.owner, Duration::ZERO);
        let found = Found {
            session: session.clone(),
            age: Duration::ZERO,
            idle_left: terms.initial_idle,
            life_left: terms.life,
        };
        let alive = &self.lifecycle.alive;
        let announce = |before: Option<&Session>| {
            if let Some(before) = before {
                announce_replaced(&self.lifecycle, before);
            }
            alive.events.announce(SessionEvent::Created {
                reference: *session.reference(),
                owner: session.owner().clone(),
            });
        };
        let Some(in_flight) = alive.registry.insert(&found, announce) else {
            // It was ended meanwhile, or one was that had its id before, and then the store still has this one. No 404: to a
            // client that has no session yet that means an old server.
            let id = session.id().clone();
            delete_in_background(&self.lifecycle, id, EndReason::Revoked);
            self.roll_back(session);
            return self.refuse(RejectionKind::Revoked);
        };
        let session = in_flight.session();
        session.note_creator(self.credentials);
        if session.note_route(Arc::clone(&self.route)) {
            self.lifecycle.notify_inner(session);
        }
        let is_part = || {
            self.route
                .upstream()
                .is_some_and(|upstream| upstream.is_part)
        };
        if self.lifecycle.inner_knows(session) && is_part() {
            alive.admission.say_that_a_part_is_wrapped();
        }
        let session = session.clone();
        let tracker = &alive.registry.tracker;
        let is_event_stream = AnswerHead::read(response.headers()).is_event_stream;
        let (head, body) = response.into_parts();
        let body = match is_event_stream {
            true => session::watch(body, in_flight, StreamKind::Answer),
            false => Ok(body),
        };
        match body {
            Ok(body) => Response::from_parts(head, watch_delivery(body, &session, tracker)),
            Err(RejectionKind::Draining) => self.refuse(RejectionKind::Draining),
            Err(_) => self.refuse(RejectionKind::Revoked),
        }
    }

    /// Ends a session in the inner service that could not be recorded.
    fn roll_back(&self, session: &Session) {
        if self.lifecycle.inner_knows(session) {
            let route = Arc::clone(&self.route);
            let notifier = &self.lifecycle.alive.notifier;
            notifier.notify(route, session);
        }
    }

    fn strip(&self, response: &mut Response<Body>) {
        if response.headers().contains_key(&SESSION_ID) {
            let route = Some(Arc::clone(&self.route));
            strip_ids(&self.lifecycle, response.headers_mut(), None, route);
        }
    }

    fn refuse(&self, kind: RejectionKind) -> Response<Body> {
        self.lifecycle.answer(Rejection::new(kind))
    }
}
