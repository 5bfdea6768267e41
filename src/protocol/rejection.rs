//! Why the layer refused a request, and what the client is told.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::value::RawValue;

use crate::{protocol::message::Message, protocol::request::SESSION_ID};

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
    versions: Option<Box<Versions>>,
}

impl Rejection {
    pub(crate) fn new(kind: RejectionKind) -> Self {
        Self {
            kind,
            request_id: None,
            versions: None,
        }
    }

    /// Of a request that claims a revision which the inner service does not speak.
    pub(crate) fn unsupported_version<V: AsRef<str>>(
        requested: &HeaderValue,
        supported: &[V],
    ) -> Self {
        let versions = Versions {
            requested: String::from_utf8_lossy(requested.as_bytes()).into_owned(),
            supported: supported
                .iter()
                .map(|version| version.as_ref().to_owned())
                .collect(),
        };
        Self {
            versions: Some(Box::new(versions)),
            ..Self::new(RejectionKind::UnsupportedProtocolVersion)
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
    /// better, that is: for everything but a 503.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_IN)
    }

    /// The `id` of the refused JSON-RPC request, as it was sent: a JSON string or number. `None` if
    /// the body was not read, or is not a request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref().map(RawValue::get)
    }

    /// The protocol revision that the refused request claims, if that is why it was refused.
    pub fn requested_version(&self) -> Option<&str> {
        self.versions
            .as_deref()
            .map(|versions| &*versions.requested)
    }

    /// The protocol revisions that it could have claimed; empty unless its revision is why it was
    /// refused.
    pub fn supported_versions(&self) -> &[String] {
        self.versions
            .as_deref()
            .map_or(&[], |versions| &versions.supported)
    }

    /// The default rendering, for a custom one that wants to differ here and there only.
    ///
    /// Without what every refusal gets on its way out, whoever rendered it: `Cache-Control:
    /// no-store`, and the `Rejection` in the extensions.
    pub fn to_response(&self) -> Response<Body> {
        match (
            self.kind,
            self.status(),
            self.request_id(),
            self.versions.as_deref(),
        ) {
            (_, StatusCode::NOT_FOUND, ..) => self.response(JSON, Body::from(SESSION_NOT_FOUND)),
            (RejectionKind::MissingSession, _, Some(id), _) => {
                let error =
                    r#"{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}"#;
                self.response(JSON, json_rpc_error(id, error))
            }
            (RejectionKind::UnsupportedProtocolVersion, _, Some(id), Some(versions)) => {
                let error = serde_json::json!({
                    "code": -32022,
                    "message": "Unsupported protocol version",
                    "data": { "supported": versions.supported, "requested": versions.requested },
                });
                self.response(JSON, json_rpc_error(id, &error.to_string()))
            }
            // Not the error of that name, for it would lack the `id`. Nothing is lost: a client
            // that speaks both eras takes any other 400 for "only legacy revisions here"
            // (2026-07-28, versioning) and goes on with `initialize`. The error itself says "no
            // version in common" to one that probes for modern revisions alone: rmcp 3.9 gives up.
            (RejectionKind::UnsupportedProtocolVersion, _, None, Some(versions)) => {
                let text = format!(
                    "Unsupported protocol version, supported: {}",
                    versions.supported.join(", ")
                );
                self.response(TEXT, Body::from(text))
            }
            _ => self.response(TEXT, Body::from(self.kind.text())),
        }
    }

    /// The one constructor of refusals: no body gets another status than its kind has.
    fn response(&self, content_type: &'static str, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(wait) = self.retry_after() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, wait.as_secs().into());
        }
        response
    }
}

/// The default rendering, with the `Rejection` in the response's extensions.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response<Body> {
        respond(self, None)
    }
}

/// How refusals look, if not as by default.
pub(crate) type Renderer = Arc<dyn Fn(&Rejection) -> Response<Body> + Send + Sync>;

/// The response to a refused request, through which every refusal leaves the layer.
///
/// Some things are no rendering's to decide: caches keep no refusal, none carries a session id
/// (there are clients that would take it over), and each carries its reason outward.
///
/// A 404 costs six allocations: two for the header map, one for the body, three for the extensions.
pub(crate) fn respond(rejection: Rejection, renderer: Option<&Renderer>) -> Response<Body> {
    let mut response = match renderer {
        Some(render) => render(&rejection),
        None => rejection.to_response(),
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().remove(&SESSION_ID);
    response.extensions_mut().insert(rejection);
    response
}

/// A JSON-RPC error response; both parts are JSON already.
fn json_rpc_error(id: &str, error: &str) -> Body {
    Body::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

/// What was asked for and what there is, of protocol revisions.
#[derive(Clone, Debug)]
struct Versions {
    requested: String,
    supported: Vec<String>,
}

/// Why a request was refused.
///
/// The client learns no more than the [status](Self::status) of it; the kind is for logs, metrics
/// and custom renderings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The request needs a session and carries no id, or an empty one. 400: "servers that require a
    /// session ID SHOULD respond to requests without an `MCP-Session-Id` header (other than
    /// initialization) with HTTP 400 Bad Request" (2025-11-25, transports, Session Management).
    MissingSession,
    /// The request carries more than one `Mcp-Session-Id` line. 400, whatever they hold: two
    /// readers of such a request could see two sessions.
    DuplicateSessionHeader,
    /// The request carries more than one `MCP-Protocol-Version` line. 400: two readers of such a
    /// request could see two revisions, one of them without sessions.
    DuplicateVersionHeader,
    /// The request claims a protocol revision that the inner service does not speak. 400
    /// (2026-07-28, Streamable HTTP, Protocol Version Header).
    UnsupportedProtocolVersion,
    /// What the request carries cannot be a session id, so none was looked up. 404, as for
    /// [`Unknown`](Self::Unknown).
    Malformed,
    /// The store does not hold this session for this caller: it was never issued, has expired, was
    /// ended, or is somebody else's. 404.
    Unknown,
    /// This process knows that the session has ended, whatever the store says. 404, as for
    /// [`Unknown`](Self::Unknown).
    Ended,
    /// The inner service no longer knows a session that the store holds. 404, as for
    /// [`Unknown`](Self::Unknown).
    InnerGone,
    /// The body that had to be read to decide is longer than the limit. 413.
    BodyTooLarge,
    /// The body that had to be read to decide did not arrive in time. 408.
    BodyTimeout,
    /// The body that had to be read to decide broke off. 400.
    BodyUnreadable,
    /// The session store did not answer, or not in time. 503, and never 404: a 404 tells the client
    /// to throw its session away.
    StoreUnavailable,
    /// There is no room for one more session, in all or for this principal. 503.
    Full,
    /// All sessions of this owner were ended while this one was being born. 503.
    Revoked,
    /// This process opens no more sessions, for it is about to stop. 503.
    Draining,
    /// A bound on background work is reached. 503.
    Busy,
    /// The application's function that names the principal failed. 500.
    PrincipalFailed,
    /// The inner service answered `initialize` with a session id that is ill-formed or already
    /// known. 500.
    InvalidInnerId,
}

impl RejectionKind {
    /// The status that the client gets, unless a custom rendering chooses another.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MissingSession
            | Self::DuplicateSessionHeader
            | Self::DuplicateVersionHeader
            | Self::UnsupportedProtocolVersion
            | Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::Malformed | Self::Unknown | Self::Ended | Self::InnerGone => {
                StatusCode::NOT_FOUND
            }
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::PrincipalFailed | Self::InvalidInnerId => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StoreUnavailable | Self::Full | Self::Revoked | Self::Draining | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// What a client is told that gets no JSON: enough to mend the request, nothing of stores and
    /// sessions.
    fn text(self) -> &'static str {
        match self {
            Self::MissingSession => "Mcp-Session-Id header is required",
            Self::DuplicateSessionHeader => "More than one Mcp-Session-Id header",
            Self::DuplicateVersionHeader => "More than one MCP-Protocol-Version header",
            Self::UnsupportedProtocolVersion => "Unsupported protocol version",
            Self::Malformed | Self::Unknown | Self::Ended | Self::InnerGone => "Session not found",
            Self::BodyTooLarge => "Request body too large",
            Self::BodyTimeout => "Request body too slow",
            Self::BodyUnreadable => "Request body could not be read",
            Self::StoreUnavailable | Self::Full | Self::Revoked | Self::Draining | Self::Busy => {
                "Service temporarily unavailable"
            }
            Self::PrincipalFailed | Self::InvalidInnerId => "Internal server error",
        }
    }
}

/// The time that a 503 asks the client to wait. Short: nothing that it stands for is known to last.
/// When a 503 is worth another try.
const RETRY_IN: Duration = Duration::from_secs(1);

const SESSION_NOT_FOUND: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::RejectionKind::*;
    use super::*;
    use http::header::SET_COOKIE;

    const ALL: [RejectionKind; 18] = [
        MissingSession,
        DuplicateSessionHeader,
        DuplicateVersionHeader,
        UnsupportedProtocolVersion,
        Malformed,
        Unknown,
        Ended,
        InnerGone,
        BodyTooLarge,
        BodyTimeout,
        BodyUnreadable,
        StoreUnavailable,
        Full,
        Revoked,
        Draining,
        Busy,
        PrincipalFailed,
        InvalidInnerId,
    ];

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    /// Status line, headers and body as one text, in the order in which they would be written.
    fn wire(response: Response<Body>) -> String {
        let (head, body) = response.into_parts();
        let body = tokio_test::block_on(axum::body::to_bytes(body, usize::MAX)).unwrap();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        let body = str::from_utf8(&body).unwrap();
        format!(
            "{}\n{}\n{body}",
            head.status.as_u16(),
            headers.collect::<String>()
        )
    }

    fn rendered(rejection: Rejection) -> String {
        wire(rejection.into_response())
    }

    fn text(status: u16, body: &str) -> String {
        format!(
            "{status}\ncontent-type: text/plain; charset=utf-8\ncache-control: no-store\n\n{body}"
        )
    }

    fn json(status: u16, body: &str) -> String {
        format!("{status}\ncontent-type: application/json\ncache-control: no-store\n\n{body}")
    }

    #[test]
    fn every_kind_to_the_byte() {
        let unavailable = "503\ncontent-type: text/plain; charset=utf-8\nretry-after: 1\ncache-control: no-store\n\n\
                           Service temporarily unavailable";
        for kind in ALL {
            let expected = match kind {
                MissingSession => text(400, "Mcp-Session-Id header is required"),
                DuplicateSessionHeader => text(400, "More than one Mcp-Session-Id header"),
                DuplicateVersionHeader => text(400, "More than one MCP-Protocol-Version header"),
                UnsupportedProtocolVersion => text(400, "Unsupported protocol version"),
                Malformed | Unknown | Ended | InnerGone => json(
                    404,
                    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#,
                ),
                BodyTooLarge => text(413, "Request body too large"),
                BodyTimeout => text(408, "Request body too slow"),
                BodyUnreadable => text(400, "Request body could not be read"),
                StoreUnavailable | Full | Revoked | Draining | Busy => unavailable.to_owned(),
                PrincipalFailed | InvalidInnerId => text(500, "Internal server error"),
            };
            assert_eq!(rendered(Rejection::new(kind)), expected, "{kind:?}");
        }
    }

    /// Nothing that is known of the request may tell one 404 from another.
    #[test]
    fn all_404_are_one_answer() {
        let expected = rendered(Rejection::new(Unknown));
        for kind in [Malformed, Unknown, Ended, InnerGone] {
            let rejection = Rejection::new(kind).with_request_id(raw("7"));
            assert_eq!(rendered(rejection), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_request_without_a_session_gets_its_id_back_as_it_was_sent() {
        for id in [
            "7",
            "-0",
            "1.50",
            "1e400",
            "12345678901234567890123",
            r#""a""#,
            r#""\u0041\/é""#,
        ] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}}}}"#
            );
            let rejection = Rejection::new(MissingSession).with_request_id(raw(id));
            assert_eq!(rejection.request_id(), Some(id));
            assert_eq!(rendered(rejection), json(400, &body));
        }
    }

    /// "Hangs": a JSON-RPC error without the request's id at a status other than 404.
    #[test]
    fn no_other_answer_is_json() {
        for kind in ALL.into_iter().filter(|kind| {
            !matches!(
                kind,
                MissingSession | Malformed | Unknown | Ended | InnerGone
            )
        }) {
            let response = Rejection::new(kind)
                .with_request_id(raw("7"))
                .into_response();
            assert_eq!(response.headers()[CONTENT_TYPE], TEXT, "{kind:?}");
        }
    }

    #[test]
    fn an_unsupported_version_is_named_with_the_supported_ones() {
        let requested = HeaderValue::from_bytes(b"v\"9\xff").unwrap();
        let rejection = Rejection::unsupported_version(&requested, &["2025-06-18", "2025-11-25"]);
        assert_eq!(rejection.requested_version(), Some("v\"9\u{fffd}"));
        assert_eq!(rejection.supported_versions(), ["2025-06-18", "2025-11-25"]);
        assert_eq!(
            rendered(rejection.clone()),
            text(
                400,
                "Unsupported protocol version, supported: 2025-06-18, 2025-11-25"
            )
        );

        let response = rejection.with_request_id(raw(r#""x""#)).into_response();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()[CONTENT_TYPE]
            ),
            (400, &JSON.parse().unwrap())
        );
        let body =
            tokio_test::block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({
                "jsonrpc": "2.0",
                "id": "x",
                "error": {
                    "code": -32022,
                    "message": "Unsupported protocol version",
                    "data": { "supported": ["2025-06-18", "2025-11-25"], "requested": "v\"9\u{fffd}" },
                },
            })
        );
    }

    #[test]
    fn when_to_try_again_is_said_only_at_503() {
        for kind in ALL {
            let rejection = Rejection::new(kind);
            let unavailable = matches!(kind, StoreUnavailable | Full | Revoked | Draining | Busy);
            assert_eq!(rejection.retry_after().is_some(), unavailable, "{kind:?}");
        }
    }

    #[test]
    fn every_refusal_carries_its_reason_outward() {
        for kind in ALL {
            let response = respond(Rejection::new(kind), None);
            let carried = response.extensions().get::<Rejection>().unwrap();
            assert_eq!(
                (carried.kind(), carried.status()),
                (kind, response.status())
            );
        }
    }

    #[test]
    fn a_custom_rendering_decides_all_but_what_must_hold() {
        let renderer: Renderer = Arc::new(|rejection| {
            Response::builder()
                .status(StatusCode::GONE)
                .header(CACHE_CONTROL, "public")
                .header(CACHE_CONTROL, "max-age=9")
                .header("Mcp-Session-Id", "a")
                .header("Mcp-Session-Id", "b")
                .header(SET_COOKIE, "c")
                .body(Body::from(format!("{:?}", rejection.kind())))
                .unwrap()
        });
        let response = respond(Rejection::new(Ended), Some(&renderer));
        assert_eq!(
            response.extensions().get::<Rejection>().unwrap().kind(),
            Ended
        );
        assert_eq!(
            wire(response),
            "410\ncache-control: no-store\nset-cookie: c\n\nEnded"
        );
    }
}
