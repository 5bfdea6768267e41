//! The birth of a session: reading a request without one, calling the inner service, recording what it answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout};

use crate::{
    lifecycle::buffered::{Peek, Seen, is_event_stream, is_plain_json},
    lifecycle::strip,
    lifecycle::upstream::{Inner, Route},
    protocol::message::{Answer, Message},
    protocol::rejection::{Rejection, RejectionKind},
    protocol::request::{LAST_EVENT_ID, SESSION_ID},
    protocol::{ClientInfo, SessionId},
    service::Call,
    service::future::pass,
    service::layer::Core,
    session::stream::StreamKind,
    session::{Issuer, Owner, Session, SessionRecord},
    store::{Created, EndReason, Found, Limit, Now, SessionStore},
};

/// Serves a legacy POST without a session id, which only the birth of a session may be.
pub(crate) async fn read_then_bear<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
) -> Result<Response<Body>, S::Failure> {
    let peek = match read(&mut call).await {
        Ok(peek) => peek,
        Err(kind) => return Ok(call.refuse(Rejection::new(kind))),
    };
    let introduction = match Message::read(peek.seen()) {
        Some(message) if message.is_modern() => None,
        Some(message) if message.is_initialize() => {
            Some(Introduction::of(&message, call.core.settings.keeps_params))
        }
        other => {
            let rejection = Rejection::new(RejectionKind::MissingSession);
            return Ok(call.refuse(rejection.with_id_of(other.as_ref())));
        }
    };
    call.body = peek.into_body();
    match introduction {
        Some(introduction) => bear(call, Some(introduction)).await,
        None => {
            call.parts.headers.remove(&LAST_EVENT_ID);
            pass(call).await
        }
    }
}

/// Refuses a request of a revision that the inner service does not speak. It is read for the `id` that the error must have.
pub(crate) async fn refuse_version<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
    rejection: Rejection,
) -> Result<Response<Body>, S::Failure> {
    let rejection = match read(&mut call).await {
        Ok(peek) => rejection.with_id_of(Message::read(peek.seen()).as_ref()),
        Err(_) => rejection,
    };
    Ok(call.refuse(rejection))
}

/// Reads the body of a request whose head does not say enough. After an error the call holds what was not read.
async fn read<S, St>(call: &mut Call<S, St>) -> Result<Peek, RejectionKind> {
    let mut peek = Peek::new(std::mem::take(&mut call.body));
    let kind = match timeout(READ_TIME, peek.read(&call.core.live.body_bytes)).await {
        Ok(Seen::Whole) => return Ok(peek),
        Ok(Seen::Beyond) => RejectionKind::BodyTooLarge,
        Ok(Seen::Broken) => RejectionKind::BodyUnreadable,
        Ok(Seen::NoRoom) => RejectionKind::Busy,
        Err(_) => RejectionKind::BodyTimeout,
    };
    call.body = peek.into_rest();
    Err(kind)
}

/// What an `initialize` request said of its client.
#[derive(Default)]
pub(crate) struct Introduction {
    client: Option<ClientInfo>,
    protocol_version: Option<String>,
    params: Option<Bytes>,
}

impl Introduction {
    fn of(message: &Message<'_>, keeps_params: bool) -> Self {
        let (client, protocol_version) = message.introduction();
        let params = message.params().filter(|_| keeps_params);
        Self {
            client,
            protocol_version,
            params: params.map(|raw| raw.get().to_owned().into()),
        }
    }
}

/// Calls the inner service with a request whose answer may open a session, and sees both through although the client
/// hangs up: what the inner service has begun must be recorded.
pub(crate) async fn bear<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
    introduction: Option<Introduction>,
) -> Result<Response<Body>, S::Failure> {
    // Before it is asked who the caller is: what is revoked from here on is not this birth's to have.
    let begun = Instant::now();
    call.parts.headers.remove(&SESSION_ID);
    let core = Arc::clone(&call.core);
    let spare = SessionId::issue();
    let ready = async {
        let owner = core.settings.owner(&call.parts)?;
        let work = core.begin_work()?;
        // A request that was not read may be anything: it is let in, and a session refused afterwards.
        if introduction.is_some() {
            core.has_room(&spare, &owner).await?;
        }
        Ok((owner, work))
    };
    let (owner, work) = match ready.await {
        Ok(ready) => ready,
        Err(kind) => return Ok(call.refuse(Rejection::new(kind))),
    };
    core.see_through(async move {
        let _work = work;
        let birth = Birth {
            begun,
            route: Route::of(&call.parts, &call.teller),
            core: call.core,
            owner,
            introduction,
            spare,
        };
        let request = Request::from_parts(call.parts, call.body);
        let response = call.inner.send(request).await?;
        Ok(birth.record(response).await)
    })
    .await
}

impl<St: SessionStore> Core<St> {
    /// Refuses what is known to fail before the inner service is called: the store is asked whether the id is free that
    /// the session would get.
    async fn has_room(&self, spare: &SessionId, owner: &Owner) -> Result<(), RejectionKind> {
        if self.live.is_draining() {
            return Err(RejectionKind::Draining);
        }
        if self.live.is_full() {
            return Err(RejectionKind::Full);
        }
        match self.store.touch_now(spare, owner, self.settings.idle) {
            Now::Unknown => self.load(spare).await.map(drop).map_err(|error| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no birth while the store is away"
                );
                RejectionKind::StoreUnavailable
            }),
            Now::Live(_) | Now::Absent => Ok(()),
        }
    }
}

/// A birth whose request the inner service has seen.
struct Birth<St> {
    core: Arc<Core<St>>,
    begun: Instant,
    route: Route,
    owner: Owner,
    /// `None` if the request was not read.
    introduction: Option<Introduction>,
    /// The id to issue if the inner service issues none.
    spare: SessionId,
}

impl<St: SessionStore> Birth<St> {
    /// Makes of the inner service's answer what the client gets: if it opened a session, only after the store has it.
    async fn record(mut self, mut response: Response<Body>) -> Response<Body> {
        let answer = if response.status().is_success() {
            self.look_at(&mut response).await
        } else {
            Answer::Error
        };
        if matches!(answer, Answer::Error | Answer::AnonymousError) {
            self.strip(&mut response);
            return response;
        }
        let (id, issuer) = match issued(response.headers()) {
            Issued::One(id) => (id, Issuer::Inner),
            Issued::None if answer == Answer::Result && self.introduction.is_some() => {
                if !self
                    .core
                    .live
                    .said_ids_are_ours
                    .swap(true, Ordering::Relaxed)
                {
                    tracing::info!("the inner service issues no session ids, so this layer does");
                }
                (self.spare.clone(), Issuer::Layer)
            }
            Issued::None => return response,
            Issued::IllFormed => {
                tracing::error!("the inner service issued an ill-formed session id");
                self.strip(&mut response);
                return self.refuse(RejectionKind::InvalidInnerId);
            }
        };
        let session = self.session(id, issuer);
        match self.create(&session).await {
            Ok(()) => self.release(&session, response),
            Err(kind) => self.refuse(kind),
        }
    }

    fn session(&mut self, id: SessionId, issuer: Issuer) -> Session {
        let introduction = self.introduction.take().unwrap_or_default();
        let record = SessionRecord {
            owner: self.owner.clone(),
            issuer,
            client: introduction.client,
            protocol_version: introduction.protocol_version,
            initialize_params: introduction.params,
        };
        Session::new(id, record)
    }

    /// Whether a successful answer holds a result.
    async fn look_at(&self, response: &mut Response<Body>) -> Answer {
        if is_event_stream(response.headers()) {
            return Answer::Result;
        }
        if !is_plain_json(response.headers()) {
            return Answer::Other;
        }
        let mut peek = Peek::new(std::mem::take(response.body_mut()));
        let answer = match peek.read(&self.core.live.body_bytes).await {
            Seen::Whole => Answer::read(peek.seen()),
            // Errors are short.
            Seen::Beyond | Seen::NoRoom => Answer::Result,
            Seen::Broken => Answer::Other,
        };
        *response.body_mut() = peek.into_body();
        answer
    }

    /// Records the session. After an error no session is left anywhere, or will be soon.
    async fn create(&self, session: &Session) -> Result<(), RejectionKind> {
        let core = &self.core;
        let terms = core.settings.terms(self.begun.elapsed());
        if core.live.is_draining() {
            self.take_back(session);
            return Err(RejectionKind::Draining);
        }
        // Before the store has it: an end that is heard from here on is this one's.
        core.live.forget_namesake(session.reference());
        let created = core.once("create a session", || core.store.create(session, &terms));
        match created.await {
            Ok(Created::New { left, evicted }) => {
                if left == Some(0) && !core.settings.evicts {
                    core.live.full();
                }
                if let Some(evicted) = evicted {
                    core.end_here(&evicted, EndReason::Evicted);
                }
                if core.live.is_revoked(&self.owner, self.begun) {
                    core.delete_at_last(session.id().clone(), EndReason::Revoked);
                    self.take_back(session);
                    return Err(RejectionKind::Revoked);
                }
                Ok(())
            }
            Ok(Created::Exists) => {
                // Whoever holds the session of that id keeps it.
                tracing::error!(session = %session.reference(), "the inner service issued a session id twice");
                Err(RejectionKind::InvalidInnerId)
            }
            Ok(Created::Full(limit)) => {
                tracing::warn!(?limit, "no room for a session");
                if limit == Limit::Total {
                    core.live.full();
                }
                self.take_back(session);
                Err(RejectionKind::Full)
            }
            Ok(Created::Revoked) => {
                self.take_back(session);
                Err(RejectionKind::Revoked)
            }
            Err(error) => {
                tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not record a session");
                core.delete_at_last(session.id().clone(), EndReason::Revoked);
                self.take_back(session);
                Err(RejectionKind::StoreUnavailable)
            }
        }
    }

    /// Hands out the answer with the recorded id.
    fn release(&self, session: &Session, mut response: Response<Body>) -> Response<Body> {
        let core = &self.core;
        tracing::debug!(session = %session.reference(), client = ?session.record().client, "a session is born");
        response
            .headers_mut()
            .insert(&SESSION_ID, session.id().to_header());
        let terms = core.settings.terms(Duration::ZERO);
        let newborn = Found {
            session: session.clone(),
            age: Duration::ZERO,
            idle_left: terms.initial_idle,
            life_left: terms.life,
        };
        let Some(visit) = core.live.bear(&newborn) else {
            // Somebody was faster. No 404: to a client that has no session yet that means an old server.
            self.take_back(session);
            return self.refuse(RejectionKind::Revoked);
        };
        if visit.note_route(|_| false, || self.route.clone()) {
            core.tell_inner(visit.live());
        }
        core.watch(response, visit, StreamKind::Answer)
            .unwrap_or_else(|kind| match kind {
                RejectionKind::Draining => self.refuse(kind),
                _ => self.refuse(RejectionKind::Revoked),
            })
    }

    /// Tells the inner service to end a session that could not be recorded.
    fn take_back(&self, session: &Session) {
        if self.core.inner_knows(session) {
            self.route
                .clone()
                .tell(session.id().clone(), &self.core.live);
        }
    }

    fn strip(&self, response: &mut Response<Body>) {
        strip::judge(response.headers_mut(), None, &self.core, || {
            self.route.clone()
        });
    }

    fn refuse(&self, kind: RejectionKind) -> Response<Body> {
        self.core.answer(Rejection::new(kind))
    }
}

enum Issued {
    None,
    One(SessionId),
    IllFormed,
}

fn issued(headers: &HeaderMap) -> Issued {
    let mut lines = headers.get_all(&SESSION_ID).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Issued::None,
        (Some(value), None) => {
            SessionId::copied(value.as_bytes()).map_or(Issued::IllFormed, Issued::One)
        }
        _ => Issued::IllFormed,
    }
}

/// How long a client may take to send a body that must be read to decide.
const READ_TIME: Duration = Duration::from_secs(10);
