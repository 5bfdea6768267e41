//! Where inner services see sessions: the same for nearly all of them, so kept once.

use std::{
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use http::{HeaderMap, HeaderValue, Uri, request::Parts};

use crate::{
    session::{Route, Upstream},
    sync::Mutex,
};

/// The routes that were in use lately. Sessions hold theirs; this only makes them hold the same one.
#[derive(Default)]
pub(crate) struct Routes {
    hasher: RandomState,
    known: Mutex<HashTable<Arc<Route>>>,
}

impl Routes {
    /// Names the route that a request takes. Never zero.
    #[inline(always)]
    pub(crate) fn digest(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        version: Option<&HeaderValue>,
        upstream: &Arc<Upstream>,
    ) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(uri.path().as_bytes());
        if let Some(authority) = uri.authority() {
            hasher.write(authority.as_str().as_bytes());
        }
        for value in [host, version] {
            hasher.write(value.map_or(b"\0", HeaderValue::as_bytes));
        }
        upstream.kind.hash(&mut hasher);
        hasher.finish() | 1
    }

    /// The route of this digest, made from the request's head if it is not known. It leads to this inner service from now
    /// on.
    pub(crate) fn get(
        &self,
        digest: u64,
        uri: &Uri,
        headers: &HeaderMap,
        upstream: &Arc<Upstream>,
    ) -> Arc<Route> {
        if let Some(route) = self.known(digest) {
            route.note_upstream(upstream);
            return route;
        }
        let made = Arc::new(Route::of(digest, uri, headers));
        made.note_upstream(upstream);
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            // A client chooses its path and `Host`, so their number has a bound.
            known.retain(|route| route.is_in_use());
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
        }
        known.insert_unique(digest, Arc::clone(&made), |route| route.digest());
        made
    }

    /// Keeps the route of a request that is on no session, for as long as others do not need the room.
    #[inline]
    pub(crate) fn note(&self, digest: u64, head: &Parts, upstream: &Arc<Upstream>) {
        if !upstream.is_noted(digest) {
            self.get(digest, &head.uri, &head.headers, upstream);
        }
    }

    /// The route of this digest, if it was in use lately.
    pub(crate) fn find(&self, digest: u64) -> Option<Arc<Route>> {
        self.known(digest)
            .filter(|route| route.upstream().is_some())
    }

    fn known(&self, digest: u64) -> Option<Arc<Route>> {
        let known = self.known.lock();
        known
            .find(digest, |route| route.digest() == digest)
            .cloned()
    }
}

const MAX_KNOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use axum::body::Body;
    use http::Request;

    use super::*;

    fn upstream<S: 'static>() -> Arc<Upstream> {
        let kind = TypeId::of::<S>();
        Arc::new(Upstream::new(kind, false, |_| {
            unreachable!("it is never called")
        }))
    }

    #[test]
    fn services_of_one_type_share_a_route_which_leads_to_the_latest() {
        let routes = Routes::default();
        let (head, _) = Request::post("/mcp")
            .body(Body::empty())
            .unwrap()
            .into_parts();
        let take = |upstream: &Arc<Upstream>| {
            let digest = routes.digest(&head.uri, None, None, upstream);
            routes.get(digest, &head.uri, &head.headers, upstream)
        };
        let (first, second, other) = (upstream::<u8>(), upstream::<u8>(), upstream::<u16>());
        let route = take(&first);
        assert!(Arc::ptr_eq(&route, &take(&second)));
        drop(first);
        assert!(Arc::ptr_eq(&route.upstream().unwrap(), &second));
        assert!(!Arc::ptr_eq(&route, &take(&other)));
        assert!(Arc::ptr_eq(&route.upstream().unwrap(), &second));
    }
}
