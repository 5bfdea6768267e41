//! Under which names a page is served, and that changes come from itself.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// The names under which administration is served, and what keeps other web pages from using it.
///
/// A browser sends forms to any address, also to loopback, for any page that it shows; and a page whose own name is made to mean
/// 127.0.0.1 can even read the answers. Neither needs a password if the browser has one already. So
///
/// * **every request** must name an allowed host in `Host` (or `:authority`), or it is answered with 403;
/// * **every change**, that is all but GET, HEAD and OPTIONS, must come from the page itself: `Sec-Fetch-Site` must be
///   `same-origin`, or, from a browser that does not send it, `Origin` must name the host that the request goes to. A request
///   with neither is not a browser's and passes: to know who sends it is authentication's business.
#[derive(Debug, Clone)]
pub struct AllowedHosts(Arc<[String]>);

impl AllowedHosts {
    /// These hosts: `mcp.example.com` with any port, `mcp.example.com:8443` with this one.
    pub fn new(hosts: impl IntoIterator<Item: Into<String>>) -> Self {
        let hosts = hosts.into_iter().map(Into::into);
        Self(
            hosts
                .map(|host: String| host.to_ascii_lowercase())
                .collect(),
        )
    }

    /// `localhost`, `127.0.0.1` and `[::1]`, with any port.
    #[must_use]
    pub fn loopback() -> Self {
        Self::new(["localhost", "127.0.0.1", "[::1]"])
    }

    /// Checks the requests to all routes that are in this router by now.
    pub fn protect<S>(&self, router: Router<S>) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        router.layer(from_fn_with_state(self.clone(), check))
    }

    fn refusal(&self, request: &Request) -> Option<&'static str> {
        let headers = request.headers();
        let hosts = headers.get_all(HOST).iter();
        let hosts: Option<Vec<Authority>> = hosts
            .map(|host| host.as_bytes().try_into().ok())
            .chain(request.uri().authority().cloned().map(Some))
            .collect();
        let hosts = hosts.unwrap_or_default();
        if hosts.is_empty() || !hosts.iter().all(|host| self.allows(host)) {
            return Some("not served under this host name");
        }
        let is_change = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let is_own = match (only(headers, &SEC_FETCH_SITE), only(headers, &ORIGIN)) {
            (Some(site), _) => site == "same-origin",
            (None, Some(origin)) => hosts.iter().all(|host| {
                let name = origin.split_once("://").map(|(_, name)| name);
                name.is_some_and(|name| name.eq_ignore_ascii_case(host.as_str()))
            }),
            (None, None) => true,
        };
        (is_change && !is_own).then_some("changes are taken from the page itself only")
    }

    fn allows(&self, host: &Authority) -> bool {
        let names = [host.host(), host.as_str()];
        // `x@127.0.0.1` is an authority, and nothing that a browser sends as a host.
        if host.as_str().contains('@') {
            return false;
        }
        let mut allowed = self.0.iter();
        allowed.any(|allowed| names.iter().any(|name| name.eq_ignore_ascii_case(allowed)))
    }
}

/// The value of a header that comes at most once. What cannot be read, or comes twice, is no browser's and equals nothing.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r str> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    match lines.next() {
        None => Some(first.to_str().unwrap_or_default()),
        Some(_) => Some(""),
    }
}

async fn check(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response {
    match hosts.refusal(&request) {
        None => next.run(request).await,
        Some(why) => {
            tracing::warn!(why, "refused a request for administration");
            (StatusCode::FORBIDDEN, why).into_response()
        }
    }
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
