//! Why the layer refused a request, and what the client is told.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::IntoResponse};
use http::{
    Extensions, HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use serde_json::value::RawValue;

use super::{SESSION_ID, message::Message};

pub use self::kind::RejectionKind;

mod kind;
#[cfg(test)]
mod tests;

/// A refused request: why, and what a rendering may say about it.
///
/// Every refusal carries its `Rejection` in the response's extensions, custom rendering included,
/// so that middleware outside the layer can log and count by [`kind`](Self::kind). None holds a
/// session id.
///
/// # Why 404, and why this body
///
/// A session id that the store does not hold live for the caller is answered with 404 and, unless a
/// custom rendering is set,
///
/// ```json
/// {"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}
/// ```
///
/// - **404, not 400**: the server "MUST respond to requests containing that session ID with HTTP
///   404 Not Found", and a client that gets it "MUST start a new session" (2025-11-25, transports,
///   Session Management). No other status makes a client begin anew.
/// - **Not 401 or 403**: a session is not a proof of identity. A client would fetch new credentials
///   and send the dead id again, and a 403 would tell a stranger that the id is somebody's.
/// - **One answer** for malformed, unknown, expired, ended and somebody else's: status, headers and
///   bytes are the same, so nobody learns which ids exist.
/// - **-32001**: the specification names no code, several SDKs' servers send this one, and some
///   deployed clients recover on nothing else.
/// - **No `id`**: the body of the request is not read to refuse it. "A JSON-RPC error response that
///   has no `id`" is what the transport has for that; `null` is an invalid id in every revision,
///   and with the request's own id some clients take the answer for the failure of one call.
///
/// At every other status a JSON-RPC error carries the request's `id` or is not sent at all: there,
/// clients exist that wait for ever for an answer that they cannot match with their request. They
/// get `text/plain`.
#[derive(Clone, Debug)]
pub struct Rejection {
    kind: RejectionKind,
    request_id: Option<Box<RawValue>>,
    detail: Option<Box<Detail>>,
    retry_in: Option<Duration>,
}

impl Rejection {
    pub(crate) fn new(kind: RejectionKind) -> Self {
        Self {
            kind,
            request_id: None,
            detail: None,
            retry_in: None,
        }
    }

    /// With a time after which another try may succeed, in whole seconds.
    #[must_use]
    pub(crate) fn with_retry_in(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_in = Some(Duration::from_secs(seconds.max(1)));
        self
    }

    /// Of a request that claims a revision which the inner service does not speak.
    pub(crate) fn unsupported_version<V: AsRef<str>>(requested: String, supported: &[V]) -> Self {
        let supported = supported.iter().map(|version| version.as_ref().to_owned());
        Self {
            detail: Some(Box::new(Detail::Versions {
                requested,
                supported: supported.collect(),
            })),
            ..Self::new(RejectionKind::UnsupportedProtocolVersion)
        }
    }

    /// Of a POST without a session id whose body is longer than so many bytes.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::with_text(
            RejectionKind::BodyTooLarge,
            format!(
                "Request body too large: the Mcp-Session-Id header is missing, and without it only an initialize \
                 request of at most {limit} bytes is accepted"
            ),
        )
    }

    /// Of a POST without a session id, and why its body is not JSON.
    pub(crate) fn body_not_json(why: &str) -> Self {
        let text = format!("{}: {why}", RejectionKind::BodyNotJson.text());
        Self::with_text(RejectionKind::BodyNotJson, text)
    }

    fn with_text(kind: RejectionKind, text: String) -> Self {
        Self {
            detail: Some(Box::new(Detail::Text(text))),
            ..Self::new(kind)
        }
    }

    /// With the `id` of the JSON-RPC *request* that was refused. A *response* has an id of the
    /// other side: it is not one.
    #[must_use]
    pub(crate) fn with_id_of(self, message: Option<&Message<'_>>) -> Self {
        match message.and_then(Message::request_id) {
            Some(id) => self.with_request_id(id.to_owned()),
            None => self,
        }
    }

    fn with_request_id(mut self, id: Box<RawValue>) -> Self {
        self.request_id = Some(id);
        self
    }

    /// Why the request was refused.
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The status that the client gets, unless a custom rendering chooses another.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// After how long it is worth trying again. `None` where only a different request can do
    /// better, that is: for everything but a 503 and a 429.
    pub fn retry_after(&self) -> Option<Duration> {
        let status = self.status();
        let passes =
            status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
        passes.then(|| self.retry_in.unwrap_or(RETRY_IN))
    }

    /// The `id` of the refused JSON-RPC request, as it was sent: a JSON string or number. `None` if
    /// the body was not read, or is not a request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref().map(RawValue::get)
    }

    /// The protocol revision that the refused request claims, if that is why it was refused.
    pub fn requested_version(&self) -> Option<&str> {
        self.versions().map(|(requested, _)| requested)
    }

    /// The protocol revisions that it could have claimed; empty unless its revision is why it was
    /// refused.
    pub fn supported_versions(&self) -> &[String] {
        self.versions().map_or(&[], |(_, supported)| supported)
    }

    fn versions(&self) -> Option<(&str, &[String])> {
        match self.detail.as_deref()? {
            Detail::Versions {
                requested,
                supported,
            } => Some((requested, supported)),
            Detail::Text(_) => None,
        }
    }

    /// The default rendering, for a custom one that wants to differ here and there only.
    ///
    /// Without what every refusal gets on its way out, whoever rendered it: `Cache-Control:
    /// no-store`, and the `Rejection` in the extensions.
    pub fn to_response(&self) -> Response<Body> {
        self.render(HeaderMap::new())
    }

    /// `headers` is empty; whatever memory it has is put to use.
    fn render(&self, headers: HeaderMap) -> Response<Body> {
        match (self.kind, self.status(), self.request_id(), self.versions()) {
            (_, StatusCode::NOT_FOUND, ..) => {
                self.response(headers, JSON, Body::from(SESSION_NOT_FOUND))
            }
            (RejectionKind::MissingSession, _, Some(id), _) => {
                let error =
                    r#"{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}"#;
                self.response(headers, JSON, json_rpc_error(id, error))
            }
            (RejectionKind::AlreadyInitialized, _, Some(id), _) => {
                let error = r#"{"code":-32600,"message":"Invalid Request: Session is already initialized"}"#;
                self.response(headers, JSON, json_rpc_error(id, error))
            }
            (
                RejectionKind::UnsupportedProtocolVersion,
                _,
                Some(id),
                Some((requested, supported)),
            ) => {
                let error = serde_json::json!({
                    "code": -32022,
                    "message": "Unsupported protocol version",
                    "data": { "supported": supported, "requested": requested },
                });
                self.response(headers, JSON, json_rpc_error(id, &error.to_string()))
            }
            // Not the error of that name, for it would lack the `id`. Nothing is lost: a client
            // that speaks both eras takes any other 400 for "only legacy revisions here"
            // (2026-07-28, versioning) and goes on with `initialize`. The error itself says "no
            // version in common" to one that probes for modern revisions alone: rmcp 3.9 gives up.
            (RejectionKind::UnsupportedProtocolVersion, _, None, Some((_, supported))) => {
                let text = format!(
                    "Unsupported protocol version, supported: {}",
                    supported.join(", ")
                );
                self.response(headers, TEXT, Body::from(text))
            }
            _ => self.response(headers, TEXT, self.text()),
        }
    }

    fn text(&self) -> Body {
        match self.detail.as_deref() {
            Some(Detail::Text(text)) => Body::from(text.clone()),
            _ => Body::from(self.kind.text()),
        }
    }

    /// The one constructor of refusals: no body gets another status than its kind has.
    fn response(
        &self,
        mut headers: HeaderMap,
        content_type: HeaderValue,
        body: Body,
    ) -> Response<Body> {
        headers.insert(CONTENT_TYPE, content_type);
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, wait.as_secs().into());
        }
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }
}

/// The default rendering, with the `Rejection` in the response's extensions.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response<Body> {
        respond(self, None, Spare::default())
    }
}

/// How refusals look, if not as by default.
pub(crate) type Renderer = Arc<dyn Fn(&Rejection) -> Response<Body> + Send + Sync>;

/// The head of a refused request, whose memory its answer takes over.
#[derive(Default)]
pub(crate) struct Spare {
    headers: HeaderMap,
    extensions: Extensions,
}

impl Spare {
    pub(crate) fn of(head: &mut Parts) -> Self {
        head.headers.clear();
        head.extensions.clear();
        Self {
            headers: std::mem::take(&mut head.headers),
            extensions: std::mem::take(&mut head.extensions),
        }
    }
}

/// The response to a refused request, through which every refusal leaves the layer.
///
/// Some things are no rendering's to decide: caches keep no refusal, none carries a session id
/// (there are clients that would take it over), and each carries its reason outward.
pub(crate) fn respond(
    rejection: Rejection,
    renderer: Option<&Renderer>,
    spare: Spare,
) -> Response<Body> {
    let mut response = match renderer {
        Some(render) => {
            let mut response = render(&rejection);
            response.headers_mut().remove(&SESSION_ID);
            response
        }
        None => {
            let mut response = rejection.render(spare.headers);
            *response.extensions_mut() = spare.extensions;
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.extensions_mut().insert(rejection);
    response
}

/// A JSON-RPC error response; both parts are JSON already.
fn json_rpc_error(id: &str, error: &str) -> Body {
    Body::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

/// What a refusal says beyond its kind.
#[derive(Clone, Debug)]
enum Detail {
    /// What was asked for and what there is, of protocol revisions.
    Versions {
        requested: String,
        supported: Vec<String>,
    },
    /// In place of the kind's text.
    Text(String),
}

/// When a 503 is worth another try.
const RETRY_IN: Duration = Duration::from_secs(1);

const SESSION_NOT_FOUND: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;

// Constants, because making them looks at every byte.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
