//! What a client is told.

use std::convert::Infallible;

use axum::body::Body;
use http::{HeaderMap, Request, Response, header::DATE};
use http_body_util::BodyExt as _;
use mcp_session_layer::{Rejection, RejectionKind};
use tower::{Service, ServiceExt as _};

pub(crate) const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
pub(crate) const NOT_FOUND: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
pub(crate) const UNAVAILABLE: &str = "Service temporarily unavailable";
pub(crate) const NO_SESSION: &str = "Mcp-Session-Id header is required";

/// The id of a `ping` of the layer's own: it asks whether a session is known. Clients' requests here have numbers.
pub(crate) fn question_of(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let id = body["id"].as_str().filter(|_| body["method"] == "ping")?;
    Some(id.to_owned())
}

/// The result of a request with this id.
pub(crate) fn result_of(id: &str) -> String {
    RESULT.replace("\"id\":1", &format!("\"id\":{id:?}"))
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) rejection: Option<Rejection>,
}

pub(crate) async fn send<S>(service: &S, request: Request<Body>) -> Answer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let Ok(response) = service.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        rejection: head.extensions.get().cloned(),
    }
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<String> {
        lines(&self.headers, "mcp-session-id")
    }

    /// The one session id that came with it.
    pub(crate) fn id(&self) -> String {
        let ids = self.ids();
        assert_eq!(ids.len(), 1, "{}", self.wire());
        ids[0].clone()
    }

    pub(crate) fn kind(&self) -> Option<RejectionKind> {
        self.rejection.as_ref().map(Rejection::kind)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// All that a client sees of it, but the date.
    pub(crate) fn wire(&self) -> String {
        let headers = self.headers.iter().filter(|(name, _)| *name != DATE);
        let headers: String = headers
            .map(|(name, value)| format!("{name}: {}\n", value.as_bytes().escape_ascii()))
            .collect();
        format!("{}\n{headers}\n{}", self.status, self.body)
    }

    /// That it is a refusal, as every refusal has to be.
    #[track_caller]
    pub(crate) fn assert_refused(&self, kind: RejectionKind, status: u16, body: &str) {
        assert_eq!(
            (self.kind(), self.status, &*self.body),
            (Some(kind), status, body)
        );
        let content_type = match body.starts_with('{') {
            true => "application/json",
            false => "text/plain; charset=utf-8",
        };
        assert_eq!(self.header("content-type"), Some(content_type));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        // How long a limit lasts depends on who is there.
        let wait = self.header("retry-after").map(|wait| wait.parse::<u64>());
        match kind {
            RejectionKind::Full => assert!(matches!(wait, Some(Ok(1..=60))), "{wait:?}"),
            _ => assert_eq!(wait, (status == 503).then_some(Ok(1))),
        }
        assert!(self.ids().is_empty());
    }

    #[track_caller]
    pub(crate) fn assert_not_found(&self, kind: RejectionKind) {
        self.assert_refused(kind, 404, NOT_FOUND);
    }

    #[track_caller]
    pub(crate) fn assert_unavailable(&self, kind: RejectionKind) {
        self.assert_refused(kind, 503, UNAVAILABLE);
    }
}

/// The session id of an answer whose body is still to come.
pub(crate) fn id_of(response: &Response<Body>) -> Option<String> {
    let id = response.headers().get("mcp-session-id")?;
    Some(id.to_str().unwrap().to_owned())
}

pub(crate) fn kind_of(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get().map(Rejection::kind)
}

/// The values of all header lines of this name.
pub(crate) fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .map(|line| line.as_bytes().escape_ascii().to_string())
        .collect()
}
