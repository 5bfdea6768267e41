//! The credentials that a request carries: what an inner service may know its caller by.

use std::hash::{BuildHasher, Hash as _, Hasher};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
    uri::PathAndQuery,
};

use super::{Head, Lines};

/// Kept while a request is being answered, in case the layer has to ask something in its caller's name. No `Debug`: all of
/// it is secret.
#[derive(Default)]
pub(crate) enum Credentials {
    #[default]
    None,
    /// One `Authorization` line and nothing else, as nearly always: it needs no allocation.
    Authorization(HeaderValue),
    Many(Box<Many>),
}

pub(crate) struct Many {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A query may hold a key, too.
    query: Option<Box<str>>,
}

impl Credentials {
    /// What a head says of them that has been read already. `None` if it takes more than that.
    #[inline]
    pub(crate) fn at_first_sight(head: &Head<'_>, uri: &Uri) -> Option<Self> {
        match head.authorization {
            _ if head.has_other_credentials || uri.query().is_some() => None,
            Lines::None => Some(Self::None),
            Lines::One(value) => Some(Self::Authorization(value.clone())),
            Lines::Many => None,
        }
    }

    /// The credentials of a request. `others` are headers besides the usual ones.
    #[cold]
    pub(crate) fn read(headers: &HeaderMap, uri: &Uri, others: &[HeaderName]) -> Self {
        let mut lines = Vec::new();
        // In an order of our own: a client may send its headers in any.
        for name in USUAL.iter().chain(others) {
            if !lines.iter().any(|(known, _)| known == name) {
                let values = headers.get_all(name).iter();
                lines.extend(values.map(|value| (name.clone(), value.clone())));
            }
        }
        let query = uri.query();
        match (&mut *lines, query) {
            ([], None) => Self::None,
            ([(name, value)], None) if *name == AUTHORIZATION => Self::Authorization(value.clone()),
            _ => Self::Many(Box::new(Many {
                headers: lines,
                query: query.map(Box::from),
            })),
        }
    }

    /// A number that is the same for the same credentials, none included, and tells nothing of them to whoever does not know
    /// the hasher's key. Never zero.
    pub(crate) fn digest(&self, key: &impl BuildHasher) -> u64 {
        let mut hasher = key.build_hasher();
        let mut add = |name: &HeaderName, value: &HeaderValue| {
            name.hash(&mut hasher);
            value.as_bytes().hash(&mut hasher);
        };
        match self {
            Self::None => {}
            Self::Authorization(value) => add(&AUTHORIZATION, value),
            Self::Many(many) => {
                for (name, value) in &many.headers {
                    add(name, value);
                }
                many.query.hash(&mut hasher);
            }
        }
        hasher.finish() | 1
    }

    /// Puts them on a request of the layer's own, in place of others of the same name.
    pub(crate) fn put_on<B>(&self, request: &mut Request<B>) {
        match self {
            Self::None => {}
            Self::Authorization(value) => {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            Self::Many(many) => {
                let headers = request.headers_mut();
                for (name, _) in &many.headers {
                    headers.remove(name);
                }
                for (name, value) in &many.headers {
                    headers.append(name, value.clone());
                }
                if let Some(query) = &many.query {
                    add_query(request.uri_mut(), query);
                }
            }
        }
    }
}

fn add_query(uri: &mut Uri, query: &str) {
    let mut parts = std::mem::take(uri).into_parts();
    let path = parts
        .path_and_query
        .as_ref()
        .map_or("/", |path| path.path());
    // It was a request's path and a request's query before.
    if let Ok(both) = PathAndQuery::try_from(format!("{path}?{query}")) {
        parts.path_and_query = Some(both);
    }
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

static USUAL: [HeaderName; 4] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
];

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

    /// By two ways, which must come to the same.
    fn of(uri: &str, headers: &[(&'static str, &'static str)]) -> Credentials {
        let uri: Uri = uri.parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let read = Credentials::read(&map, &uri, &[SIGNATURE]);
        if let Some(seen) = Credentials::at_first_sight(&Head::read(&mut map), &uri)
            && !map.contains_key(SIGNATURE)
        {
            let key = RandomState::new();
            assert_eq!(seen.digest(&key), read.digest(&key), "{headers:?}");
        }
        read
    }

    #[test]
    fn a_digest_is_the_same_for_the_same_credentials_and_for_no_others() {
        let key = RandomState::new();
        let different = [
            of("/mcp", &[]),
            of("/mcp?", &[]),
            of("/mcp?key=1", &[]),
            of("/mcp", &[("authorization", "a")]),
            of("/mcp", &[("authorization", "b")]),
            of("/mcp", &[("authorization", "a"), ("authorization", "b")]),
            of("/mcp?a", &[("authorization", "a")]),
            of("/mcp", &[("cookie", "a")]),
            of("/mcp", &[("x-api-key", "a")]),
            of("/mcp", &[("proxy-authorization", "a")]),
            of("/mcp", &[("x-signature", "a")]),
            of("/mcp", &[("cookie", "a"), ("x-api-key", "b")]),
        ];
        for (nth, one) in different.iter().enumerate() {
            for (other, two) in different.iter().enumerate() {
                assert_eq!(
                    nth == other,
                    one.digest(&key) == two.digest(&key),
                    "{nth} {other}"
                );
            }
        }
        let turned = of(
            "/x",
            &[("x-api-key", "b"), ("accept", "c"), ("cookie", "a")],
        );
        assert_eq!(turned.digest(&key), different[11].digest(&key));
        assert_ne!(turned.digest(&key), turned.digest(&RandomState::new()));
    }

    #[test]
    fn they_are_put_in_place_of_others() {
        let mut request = Request::builder()
            .uri("http://host/mcp")
            .header("authorization", "old")
            .header("cookie", "old")
            .body(())
            .unwrap();
        let lines = [("cookie", "a"), ("cookie", "b"), ("authorization", "c")];
        of("/other?key=1", &lines).put_on(&mut request);
        assert_eq!(request.uri(), "http://host/mcp?key=1");
        let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        assert_eq!(request.headers()["authorization"], "c");
    }
}
