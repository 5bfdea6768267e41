//! What a proxy changes in the headers of requests and answers.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT,
            FORWARDED, HOST, LOCATION, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
            TRAILER, TRANSFER_ENCODING, UPGRADE,
        },
        request, response,
    },
};

use super::upstream::Upstream;

/// How requests are changed on their way to a server.
#[derive(Clone, Copy)]
pub(crate) struct Inward {
    /// `X-Forwarded-*` that arrive were written by a proxy of ours.
    pub(crate) behind_proxy: bool,
    /// The caller's credentials were for this gateway, and are nobody else's to see.
    pub(crate) authenticates: bool,
}

impl Inward {
    /// Makes a request one to this server, and answers the `Origin` that it had.
    pub(crate) fn change(self, head: &mut request::Parts, to: &Upstream) -> Option<HeaderValue> {
        self.forward(head);
        let headers = &mut head.headers;
        // Asked for already: the body is read when there is somebody to send it to.
        headers.remove(EXPECT);
        if self.authenticates {
            headers.remove(AUTHORIZATION);
        }
        headers.insert(HOST, to.host.clone());
        let origin = headers.get(ORIGIN).cloned();
        if origin.is_some() {
            headers.insert(ORIGIN, to.origin.clone());
        }
        origin
    }

    /// Says who called, and by which name.
    fn forward(self, head: &mut request::Parts) {
        let host = match head.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => head.headers.get(HOST).cloned(),
        };
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|peer| peer.0.ip().to_string());
        let headers = &mut head.headers;
        if !self.behind_proxy {
            let spoofed: Vec<_> = headers
                .keys()
                .filter(|name| name.as_str().starts_with("x-forwarded-") || *name == FORWARDED)
                .cloned()
                .collect();
            for name in spoofed {
                headers.remove(name);
            }
        }
        let before = headers.get_all(&FORWARDED_FOR).iter();
        let mut hops: Vec<_> = before.filter_map(|hop| hop.to_str().ok()).collect();
        hops.extend(peer.as_deref());
        if let Ok(hops) = HeaderValue::from_str(&hops.join(", "))
            && !hops.is_empty()
        {
            headers.insert(FORWARDED_FOR, hops);
        }
        headers
            .entry(FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static("http"));
        if let Some(host) = host {
            headers.entry(FORWARDED_HOST).or_insert(host);
        }
    }
}

/// Makes a server's answer one of this gateway. `origin` is what the request had.
pub(crate) fn change_answer(
    head: &mut response::Parts,
    from: &Upstream,
    origin: Option<HeaderValue>,
) {
    let headers = &mut head.headers;
    strip(headers);
    // The server knows itself by another name.
    if headers.get(ACCESS_CONTROL_ALLOW_ORIGIN) == Some(&from.origin)
        && let Some(origin) = origin
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if let Some(place) = headers
        .get(LOCATION)
        .and_then(|location| from.place(location))
    {
        headers.insert(LOCATION, place);
    }
    let is_event_stream = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.len() >= EVENT_STREAM.len()
            && kind[..EVENT_STREAM.len()].eq_ignore_ascii_case(EVENT_STREAM)
    });
    if is_event_stream {
        // For nginx in front.
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
}

/// Removes what is said to this gateway alone (RFC 9110, 7.6.1).
pub(crate) async fn strip_hop_by_hop(mut request: Request) -> Request {
    strip(request.headers_mut());
    request
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Without it nobody could tell for whom the request is.
        .filter(|name| *name != HOST)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const EVENT_STREAM: &[u8] = b"text/event-stream";
