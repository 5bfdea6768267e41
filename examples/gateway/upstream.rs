//! A server behind this gateway.

use std::str::FromStr;

use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

#[derive(Clone)]
pub(crate) struct Upstream {
    /// What sessions know it by.
    pub(crate) name: String,
    /// The name was given, and is not just the address.
    pub(crate) is_named: bool,
    authority: Authority,
    pub(crate) host: HeaderValue,
    pub(crate) origin: HeaderValue,
}

impl Upstream {
    /// This path on this server.
    pub(crate) fn uri(&self, of: &Uri) -> Result<Uri, http::Error> {
        let path = of.path_and_query().cloned();
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
            .build()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> (String, u16) {
        let host = self.authority.host().trim_matches(['[', ']']);
        (host.to_owned(), self.authority.port_u16().unwrap_or(80))
    }

    /// The path and query of a place on this server.
    pub(crate) fn place(&self, location: &HeaderValue) -> Option<HeaderValue> {
        let place = location
            .as_bytes()
            .strip_prefix(self.origin.as_bytes())
            .filter(|place| place.starts_with(b"/"))?;
        HeaderValue::from_bytes(place).ok()
    }
}

/// `http://HOST:PORT`, which is its name too, or `NAME=http://HOST:PORT`.
impl FromStr for Upstream {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (Some(name), url),
            _ => (None, text),
        };
        let uri: Uri = url.parse()?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            anyhow::bail!("expected http://HOST:PORT or NAME=http://HOST:PORT");
        };
        anyhow::ensure!(
            *scheme == Scheme::HTTP,
            "servers behind this gateway are spoken to over plain HTTP"
        );
        anyhow::ensure!(
            matches!(uri.path(), "" | "/") && uri.query().is_none(),
            "requests keep their path: name the server alone, as http://{authority}"
        );
        anyhow::ensure!(name != Some(""), "a server's name must not be empty");
        Ok(Self {
            is_named: name.is_some(),
            name: name.unwrap_or(authority.as_str()).to_owned(),
            host: HeaderValue::from_str(authority.as_str())?,
            origin: HeaderValue::from_str(&format!("http://{authority}"))?,
            authority: authority.clone(),
        })
    }
}
