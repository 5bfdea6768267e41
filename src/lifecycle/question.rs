//! Asking the inner service whether it knows a session: with a `ping` of the layer's own.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
    request::Parts,
};
use http_body::Body as HttpBody;
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

use super::{Buffered, Lifecycle, ReadEnd, notify};
use crate::{
    protocol::{AnswerHead, Credentials, Events, Reply},
    session::{Issuer, Route, Session, Trial, Upstream, Verdict},
};

/// What asking needs, for one layer.
pub(crate) struct Questions {
    places: Semaphore,
    /// Under which credentials are digested.
    pub(super) key: std::hash::RandomState,
    /// Of services that axum makes anew for each request.
    trial_of_parts: Trial,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_AT_ONCE),
            key: std::hash::RandomState::new(),
            trial_of_parts: Trial::default(),
        }
    }
}

impl Lifecycle {
    /// The digest of a caller's credentials.
    pub(super) fn digest_of(&self, head: &Parts) -> u64 {
        let credentials = self.settings.credentials_of(head);
        credentials.digest(&self.alive.questions.key)
    }
}

/// What the inner service said of a session.
pub(super) struct Heard {
    pub(super) verdict: Verdict,
    /// `None` if it did not answer in time.
    status: Option<StatusCode>,
}

impl Heard {
    /// Whether another try would be answered in the same way.
    fn is_final(&self) -> bool {
        self.status
            .is_some_and(|status| !notify::may_change(status))
    }
}

/// Whether this answer may mean that the inner service has forgotten the session.
pub(super) fn suspects(lifecycle: &Lifecycle, session: &Session, status: StatusCode) -> bool {
    // An id that it did not issue it need not know.
    session.issuer() == Issuer::Inner && lifecycle.settings.forgotten.contains(&status)
}

/// Whether the service behind this session is known to misunderstand the question, or is gone.
pub(super) async fn is_in_vain(lifecycle: &Lifecycle, session: &Session) -> bool {
    match upstream_of(session) {
        Some((_, upstream)) => trial_of(lifecycle, &upstream).fails().await,
        None => true,
    }
}

/// Asks about a session, in the name of whoever has these credentials.
pub(super) async fn ask(
    lifecycle: &Lifecycle,
    session: &Session,
    credentials: &Credentials,
) -> Heard {
    let mut status = None;
    let asked = async {
        let (route, upstream) = upstream_of(session)?;
        let _place = lifecycle.alive.questions.places.acquire().await;
        let id = uuid::Uuid::new_v4().to_string();
        let question = question(&route, session, &id, credentials);
        let response = upstream.call(question).await.ok()?;
        status = Some(response.status());
        read(lifecycle, response, &id).await
    };
    let asked = timeout(PATIENCE, asked).await;
    if asked.is_err() {
        status = None;
    }
    let reply = asked.ok().flatten();
    let verdict = match (reply, status) {
        (Some(Reply::Served), _) => Verdict::Lives,
        // Some servers let a new session `ping` only after `initialized`.
        (Some(Reply::Refused), Some(StatusCode::BAD_REQUEST)) if is_new(session) => {
            Verdict::Undecided
        }
        (Some(_), Some(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)) => Verdict::Forgotten,
        _ => Verdict::Undecided,
    };
    Heard { verdict, status }
}

/// Asks, once for each inner service, about a session that it has just served. If it does not understand that, no question
/// to it is of any use.
pub(super) fn try_out(lifecycle: &Arc<Lifecycle>, session: Session, credentials: Credentials) {
    if session.issuer() != Issuer::Inner || lifecycle.settings.forgotten.is_empty() {
        return;
    }
    let (Some((_, upstream)), Ok(runtime)) = (upstream_of(&session), Handle::try_current()) else {
        return;
    };
    let Some(turn) = trial_of(lifecycle, &upstream).begin() else {
        return;
    };
    let lifecycle = Arc::clone(lifecycle);
    let mut trial = Box::pin(async move {
        let doubts = session.doubts();
        // Nobody else asks about it meanwhile. What is found is not kept: nobody has doubted it.
        let _asking = doubts.ask().await;
        let heard = ask(&lifecycle, &session, &credentials).await;
        let trial = trial_of(&lifecycle, &upstream);
        if heard.verdict == Verdict::Lives {
            trial.pass();
        } else if session.has_ended() || doubts.is_being_ended() {
            // It is no wonder then. The next session will do.
        } else if heard.is_final() || !trial.try_again() {
            trial.fail();
            tracing::warn!(
                status = heard.status.map(|status| status.as_u16()),
                "the inner service does not answer this layer's `ping` about a session that it serves, so it is not asked \
                 which sessions it has forgotten; it may have to be named as a whole (see `with_inner`), or know its callers \
                 by headers that are not sent along (see `with_credentials`)"
            );
        }
        drop(turn);
    });
    // It is sent before the answer goes out, after which the session may end. Nobody waits for what comes of it.
    let mut context = Context::from_waker(Waker::noop());
    if trial.as_mut().poll(&mut context).is_pending() {
        runtime.spawn(trial);
    }
}

/// Created on this node, and no request on it has been served yet.
fn is_new(session: &Session) -> bool {
    session.creator() != 0 && !session.state().now().is_served()
}

fn upstream_of(session: &Session) -> Option<(Arc<Route>, Arc<Upstream>)> {
    let route = session.route()?;
    let upstream = route.upstream()?;
    Some((route, upstream))
}

fn trial_of<'a>(lifecycle: &'a Lifecycle, upstream: &'a Upstream) -> &'a Trial {
    match upstream.is_part {
        true => &lifecycle.alive.questions.trial_of_parts,
        false => &upstream.trial,
    }
}

fn question(
    route: &Route,
    session: &Session,
    id: &str,
    credentials: &Credentials,
) -> Request<Body> {
    let mut request = route.request(Method::POST, session.id());
    let headers = request.headers_mut();
    let both = HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(ACCEPT, both);
    let json = HeaderValue::from_static("application/json");
    headers.insert(CONTENT_TYPE, json);
    credentials.put_on(&mut request);
    request.extensions_mut().insert(session.clone());
    let body = format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}"#);
    *request.body_mut() = Body::from(body);
    request
}

/// `None` if the answer cannot be read to where it says something.
async fn read(lifecycle: &Lifecycle, response: Response<Body>, id: &str) -> Option<Reply> {
    let is_event_stream = AnswerHead::read(response.headers()).is_event_stream;
    let mut body = response.into_body();
    if !is_event_stream {
        let mut body = Buffered::new(body);
        let end = body.read(&lifecycle.alive.body_budget).await;
        return (end == ReadEnd::Complete).then(|| Reply::read(body.bytes(), id));
    }
    let (mut events, mut length) = (Events::default(), 0);
    while length <= LONGEST_STREAM {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let data = match frame {
            None => return Some(Reply::Other),
            Some(frame) => frame.ok()?.into_data().unwrap_or_default(),
        };
        // An empty frame counts, too.
        length += data.len().max(1);
        let mut reply = Reply::Other;
        events.feed(&data, |event| match Reply::read(event, id) {
            Reply::Other => {}
            said => reply = said,
        });
        if reply != Reply::Other {
            return Some(reply);
        }
    }
    None
}

const MAX_AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(3);
/// In bytes.
const LONGEST_STREAM: usize = 64 << 10;
