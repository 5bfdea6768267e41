//! Which names this gateway answers to, and which web pages may call it: against DNS rebinding.
//!
//! A page of `http://evil.example` may point its own name at 127.0.0.1 and then talk to whatever listens there. The browser
//! says so in `Host` and `Origin` ("Servers MUST validate the `Origin` header on all incoming connections", 2025-11-25,
//! transports, Security Warning).

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use clap::Args;

#[derive(Args)]
pub(crate) struct AllowOptions {
    /// A name by which clients call this gateway, as mcp.example.com. Repeatable. Loopback names and the address that it
    /// listens on are allowed always.
    #[arg(long = "allow-host", value_name = "NAME")]
    hosts: Vec<String>,
    /// An origin of web pages that may call it, as https://app.example.com. Repeatable. Origins of allowed hosts are allowed
    /// always.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<String>,
}

pub(crate) struct Allowed {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl AllowOptions {
    pub(crate) fn allowed(&self, listens_on: SocketAddr) -> anyhow::Result<Allowed> {
        let mut hosts: Vec<_> = ["localhost", "127.0.0.1", "[::1]"]
            .map(str::to_owned)
            .into();
        if !listens_on.ip().is_unspecified() {
            hosts.push(host_of(&listens_on.to_string()).context("an address is an authority")?);
        }
        for host in &self.hosts {
            hosts.push(host_of(host).with_context(|| format!("{host} is not a host's name"))?);
        }
        let origins = self.origins.iter().map(|origin| {
            origin_host(origin).with_context(|| format!("{origin} is not an origin"))?;
            anyhow::Ok(origin.to_ascii_lowercase())
        });
        Ok(Allowed {
            hosts,
            origins: origins.collect::<Result<_, _>>()?,
        })
    }
}

/// Refuses with 403 what is called by another name, or from a page that is not allowed.
pub(crate) async fn allow(
    State(allowed): State<Arc<Allowed>>,
    request: Request,
    next: Next,
) -> Response {
    if !allowed.host(request.uri(), request.headers()) {
        return (StatusCode::FORBIDDEN, "Host is not allowed\n").into_response();
    }
    if !allowed.origin(request.headers()) {
        return (StatusCode::FORBIDDEN, "Origin is not allowed\n").into_response();
    }
    next.run(request).await
}

impl Allowed {
    /// A request may name its host in the request line, in `Host`, or in both; every name has to be allowed.
    fn host(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut names = headers
            .get_all(HOST)
            .iter()
            .map(|value| value.to_str().ok())
            .chain(uri.authority().map(|authority| Some(authority.as_str())))
            .peekable();
        names.peek().is_some()
            && names.all(|name| {
                name.and_then(host_of)
                    .is_some_and(|host| self.hosts.contains(&host))
            })
    }

    /// Whoever is not a browser sends no `Origin`.
    fn origin(&self, headers: &HeaderMap) -> bool {
        let allows = |origin: &HeaderValue| {
            let Some(origin) = origin.to_str().ok().map(str::to_ascii_lowercase) else {
                return false;
            };
            self.origins.contains(&origin)
                || origin_host(&origin).is_some_and(|host| self.hosts.contains(&host))
        };
        headers.get_all(ORIGIN).iter().all(allows)
    }
}

/// The name in `NAME` or `NAME:PORT`.
fn host_of(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok()?;
    let has_user = authority.as_str().contains('@');
    (!has_user).then(|| authority.host().to_ascii_lowercase())
}

/// The name in `SCHEME://NAME` or `SCHEME://NAME:PORT`.
fn origin_host(origin: &str) -> Option<String> {
    let (scheme, authority) = origin.split_once("://")?;
    matches!(scheme, "http" | "https").then(|| host_of(authority))?
}
