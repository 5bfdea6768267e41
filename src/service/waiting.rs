//! Requests that have to wait before they go inward: for a body, for the store, for their turn.

use std::{future::Future, sync::Arc};

use axum::body::{Body, Bytes};
use http::{Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

use super::look_up::{look_up, look_up_marked};
use crate::{
    lifecycle::{
        Buffered, Creation, Forwarded, InitializeParams, Lifecycle, ReadEnd, Settings,
        answer::{answer_on_session, answer_without_session, resolve, strip_to_own},
        background::run_to_its_end,
        delete::{terminate, terminate_as_inner},
    },
    protocol::{
        AnswerHead, Head, LAST_EVENT_ID, Rejection, RejectionKind, SESSION_ID, SessionId,
        message::Message,
        request::{Otherwise, Revisions},
    },
    session::{InFlight, Owner, Route, Session, Upstream},
};

/// A request on its way, and what serves it.
pub(super) struct Call<S> {
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Ready for one call.
    pub(super) inner: S,
    pub(super) upstream: Arc<Upstream>,
    pub(super) parts: Parts,
    pub(super) body: Body,
}

/// An inner service that can be called from a future of ours.
pub(super) trait Inner: Send + 'static {
    type Failure: Send + 'static;

    /// Calls the service, which must be ready.
    fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Self::Failure>> + Send;
}

impl<S, B> Inner for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Send, Future: Send> + Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Failure = S::Error;

    fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send {
        let answer = self.call(request);
        async move { Ok(answer.await?.map(Body::new)) }
    }
}

impl<S: Inner> Call<S> {
    /// Serves a POST without a session, which has to be read: it may be an `initialize` request.
    pub(super) async fn read_and_serve(
        mut self,
        otherwise: Otherwise,
    ) -> Result<Response<Body>, S::Failure> {
        let body = match (self.read().await, otherwise) {
            (Ok(body), _) => body,
            (Err(rejection), Otherwise::Refuse) => return Ok(self.refuse_with(rejection)),
            // Nobody but the inner service can tell what it is.
            (Err(_), Otherwise::Adopt | Otherwise::Pass) => return self.adopt().await,
        };
        let next = self.judge(body.bytes(), otherwise);
        self.body = body.into_body();
        match next {
            Next::Initialize(params) => self.initialize(params).await,
            Next::Adopt => self.adopt().await,
            Next::Pass => self.pass().await,
            Next::Refuse(rejection) => Ok(self.refuse_with(rejection)),
        }
    }

    fn judge(&self, body: &[u8], otherwise: Otherwise) -> Next {
        let Settings {
            rules,
            supported,
            keeps_params,
            ..
        } = &self.lifecycle.settings;
        let message = Message::read(body);
        if let Ok(Some(message)) = &message {
            match message.claimed_version() {
                Some(version) if rules.revisions == Revisions::LegacyOnly => {
                    // To say that a version is not supported, and then to name it among those that are, would leave a
                    // client that tries it next (rmcp does) without any. In its own terms it lacks a session.
                    let rejection = match supported.contains(&version) {
                        true => Rejection::new(RejectionKind::MissingSession),
                        false => Rejection::unsupported_version(version, supported),
                    };
                    return Next::Refuse(rejection.with_id_of(Some(message)));
                }
                Some(_) => return Next::Pass,
                None if message.is_initialize() => {
                    return Next::Initialize(InitializeParams::of(message, *keeps_params));
                }
                None => {}
            }
        }
        match (otherwise, message) {
            (Otherwise::Adopt, _) => Next::Adopt,
            (Otherwise::Pass, _) => Next::Pass,
            (Otherwise::Refuse, Ok(message)) => {
                let rejection = Rejection::new(RejectionKind::MissingSession);
                Next::Refuse(rejection.with_id_of(message.as_ref()))
            }
            (Otherwise::Refuse, Err(why)) => Next::Refuse(Rejection::body_not_json(&why)),
        }
    }

    /// Creates a session, and runs the inner service's answer and its recording to their end although the client hangs up:
    /// what the inner service has begun must be recorded.
    async fn initialize(mut self, params: InitializeParams) -> Result<Response<Body>, S::Failure> {
        self.strip();
        let lifecycle = Arc::clone(&self.lifecycle);
        let place = match lifecycle.alive.background.begin() {
            Ok(place) => place,
            Err(kind) => return Ok(self.refuse(kind)),
        };
        let route = self.route();
        let creation = Creation::begin(&lifecycle, &self.parts, route, Some(params)).await;
        let creation = match creation {
            Ok(creation) => creation,
            Err(rejection) => return Ok(self.refuse_with(rejection)),
        };
        let work = async move {
            let _place = place;
            let request = Request::from_parts(self.parts, self.body);
            let response = self.inner.send(request).await?;
            Ok(creation.record(response).await)
        };
        run_to_its_end(lifecycle, work).await
    }

    /// Lets a request through that is no `initialize` as far as is known, and ends with its client. If the answer has a
    /// session id all the same, the session is created, whether the client still listens or not.
    async fn adopt(mut self) -> Result<Response<Body>, S::Failure> {
        self.strip();
        let lifecycle = Arc::clone(&self.lifecycle);
        let route = self.route();
        let creation = match Creation::begin(&lifecycle, &self.parts, route, None).await {
            Ok(creation) => creation,
            Err(rejection) => return Ok(self.refuse_with(rejection)),
        };
        let request = Request::from_parts(self.parts, self.body);
        let response = self.inner.send(request).await?;
        if !AnswerHead::read(response.headers()).has_id {
            return Ok(response);
        }
        let place = match lifecycle.alive.background.begin() {
            Ok(place) => place,
            Err(kind) => return Ok(creation.abandon(response, kind)),
        };
        let work = async move {
            let _place = place;
            Ok(creation.record(response).await)
        };
        run_to_its_end(lifecycle, work).await
    }

    /// Serves a request on a session of which this process's memory could not tell.
    pub(super) async fn ask_store(
        self,
        id: SessionId,
        caller: Owner,
    ) -> Result<Response<Body>, S::Failure> {
        match look_up(&self.lifecycle, &id, &caller).await {
            Ok(in_flight) => self.forward(in_flight).await,
            Err(kind) => self.refuse_or_create(kind).await,
        }
    }

    /// Serves a request on a session of which there is something to look after.
    pub(super) async fn ask_about_marked(
        self,
        id: SessionId,
        caller: Owner,
    ) -> Result<Response<Body>, S::Failure> {
        let lifecycle = &self.lifecycle;
        let found = match lifecycle.alive.marked.seems_forgotten(&id) {
            true => look_up_marked(lifecycle, &id, &caller).await,
            false => look_up(lifecycle, &id, &caller).await,
        };
        match found {
            Ok(in_flight) => self.forward(in_flight).await,
            Err(kind) => self.refuse_or_create(kind).await,
        }
    }

    /// Serves a request on a live session.
    pub(super) async fn forward(
        mut self,
        in_flight: InFlight,
    ) -> Result<Response<Body>, S::Failure> {
        if let Some(refusal) = self.refusal_on_closed(in_flight.session()).await {
            return Ok(self.refuse_with(refusal));
        }
        let settings = &self.lifecycle.settings;
        let head = Head::read(&mut self.parts.headers);
        let credentials = settings.credentials_at_first_sight(&head, &self.parts.uri);
        let routes = &self.lifecycle.alive.registry.routes;
        let upstream = &self.upstream;
        let digest = routes.digest(&self.parts.uri, head.host, head.version.one(), upstream);
        let mut forwarded = Forwarded::prepare(
            &self.lifecycle,
            in_flight,
            &mut self.parts,
            digest,
            credentials,
            upstream,
        );
        // Nobody sees from here whether it is answered at once.
        forwarded.waited();
        if self.parts.method == Method::DELETE {
            return self.delete(forwarded).await;
        }
        let request = Request::from_parts(self.parts, self.body);
        let mut response = self.inner.send(request).await?;
        let mut forwarded = Some(forwarded);
        let is_suspicious = answer_on_session(&self.lifecycle, &mut response, &mut forwarded);
        match forwarded.filter(|_| is_suspicious) {
            Some(forwarded) => Ok(resolve(&self.lifecycle, response, forwarded).await),
            None => Ok(response),
        }
    }

    /// Why a request on a live session does not go inward after all: it is an `initialize`, of which each leaves one more
    /// session inside.
    async fn refusal_on_closed(&mut self, session: &Session) -> Option<Rejection> {
        let marked = &self.lifecycle.alive.marked;
        if self.parts.method != Method::POST || !marked.is_closed(session.id()) {
            return None;
        }
        // What cannot be read goes on: it may be any call.
        let body = self.read().await.ok()?;
        let message = Message::read(body.bytes()).ok().flatten();
        let refusal = message.filter(Message::is_initialize).map(|message| {
            Rejection::new(RejectionKind::AlreadyInitialized).with_id_of(Some(&message))
        });
        self.body = body.into_body();
        refusal
    }

    /// Refuses a request that names no live session of its caller, unless it is one that may create a session all the same,
    /// and does.
    pub(super) async fn refuse_or_create(
        mut self,
        kind: RejectionKind,
    ) -> Result<Response<Body>, S::Failure> {
        if !self.lifecycle.settings.may_resend(kind, &self.parts) {
            return Ok(self.refuse(kind));
        }
        let Ok(body) = self.read().await else {
            return Ok(self.refuse(kind));
        };
        let params = match self.judge(body.bytes(), Otherwise::Pass) {
            Next::Initialize(params) => Some(params),
            _ => None,
        };
        self.body = body.into_body();
        match params {
            Some(params) => self.initialize(params).await,
            None => Ok(self.refuse(kind)),
        }
    }

    /// Serves a DELETE on a live session, to its end although the client hangs up.
    async fn delete(mut self, forwarded: Forwarded) -> Result<Response<Body>, S::Failure> {
        let lifecycle = Arc::clone(&self.lifecycle);
        // The first of many that come at once is answered before the next one is sent inward: to the others the inner
        // service would say something else than to the first.
        let turn = forwarded.session().doubts().turn().await;
        if forwarded.session().has_ended() {
            return Ok(self.refuse(RejectionKind::Ended));
        }
        let place = match lifecycle.alive.background.begin() {
            Ok(place) => place,
            Err(kind) => return Ok(self.refuse(kind)),
        };
        let work = async move {
            let (_place, _turn) = (place, turn);
            let lifecycle = self.lifecycle;
            if !lifecycle.inner_knows(forwarded.session()) {
                lifecycle.discard(&self.parts, self.body);
                return Ok(terminate(&lifecycle, forwarded.session()).await);
            }
            let request = Request::from_parts(self.parts, self.body);
            let mut response = self.inner.send(request).await?;
            strip_to_own(&lifecycle, &mut response, &forwarded);
            Ok(terminate_as_inner(&lifecycle, &forwarded, response).await)
        };
        run_to_its_end(lifecycle, work).await
    }

    /// Lets a request through that has nothing to do with sessions, after it had to be read.
    async fn pass(mut self) -> Result<Response<Body>, S::Failure> {
        self.strip();
        // Before the request is gone.
        let route = self.route();
        let request = Request::from_parts(self.parts, self.body);
        let mut response = self.inner.send(request).await?;
        answer_without_session(&self.lifecycle, &mut response, || Some(route));
        Ok(response)
    }

    /// Refuses a request of a revision that the inner service does not speak. It is read for the `id` that the error must
    /// have.
    pub(super) async fn refuse_version(
        mut self,
        rejection: Rejection,
    ) -> Result<Response<Body>, S::Failure> {
        let body = match self.read().await {
            Ok(body) => body,
            Err(_) => return Ok(self.refuse_with(rejection)),
        };
        let message = Message::read(body.bytes()).ok().flatten();
        Ok(self.refuse_with(rejection.with_id_of(message.as_ref())))
    }

    /// Reads the body of a request whose head does not say enough. After an error the call has the whole of it again.
    async fn read(&mut self) -> Result<Buffered, Rejection> {
        let limit = self.lifecycle.settings.body_limit;
        let mut body = Buffered::limited(std::mem::take(&mut self.body), limit);
        let kind = match body.read(&self.lifecycle.alive.body_budget).await {
            ReadEnd::Complete => return Ok(body),
            ReadEnd::TooLong => RejectionKind::BodyTooLarge,
            ReadEnd::TooSlow => RejectionKind::BodyTimeout,
            ReadEnd::Broken => RejectionKind::BodyUnreadable,
            ReadEnd::OverBudget => RejectionKind::Busy,
        };
        self.body = body.into_body();
        Err(match kind {
            RejectionKind::BodyTooLarge => Rejection::body_too_large(limit),
            kind => Rejection::new(kind),
        })
    }

    /// Removes what no request may carry inward that is not on a live session.
    fn strip(&mut self) {
        self.parts.headers.remove(&SESSION_ID);
        self.parts.headers.remove(&LAST_EVENT_ID);
    }

    fn digest(&mut self) -> u64 {
        let head = Head::read(&mut self.parts.headers);
        let routes = &self.lifecycle.alive.registry.routes;
        let uri = &self.parts.uri;
        routes.digest(uri, head.host, head.version.one(), &self.upstream)
    }

    fn route(&mut self) -> Arc<Route> {
        let digest = self.digest();
        let Parts { uri, headers, .. } = &self.parts;
        let Lifecycle {
            settings, alive, ..
        } = &*self.lifecycle;
        let routes = &alive.registry.routes;
        let route = routes.get(digest, uri, headers, &self.upstream);
        settings.own_route(&route, &self.parts).unwrap_or(route)
    }

    fn refuse(self, kind: RejectionKind) -> Response<Body> {
        self.refuse_with(Rejection::new(kind))
    }

    fn refuse_with(mut self, rejection: Rejection) -> Response<Body> {
        let head = &mut self.parts;
        self.lifecycle.refuse(rejection, head, self.body)
    }
}

/// What becomes of a POST without a session that has been read.
enum Next {
    Initialize(InitializeParams),
    Adopt,
    Pass,
    Refuse(Rejection),
}
