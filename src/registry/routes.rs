//! Where inner services see sessions: the same for nearly all of them, so kept once.

use std::{
    hash::{BuildHasher as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use http::{HeaderMap, HeaderValue, Uri, request::Parts};
use parking_lot::Mutex;

use crate::session::{Route, Upstream};

/// The routes that were in use lately. Sessions hold theirs; this only makes them hold the same one.
#[derive(Default)]
pub(crate) struct Routes {
    hasher: RandomState,
    known: Mutex<HashTable<Arc<Route>>>,
    /// The digest that was noted last.
    last: AtomicU64,
}

impl Routes {
    /// Names the route that a request takes. Never zero.
    #[inline]
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
        hasher.write_usize(Arc::as_ptr(upstream).addr());
        hasher.finish() | 1
    }

    /// The route of this digest, made from the request's head if it is not known.
    pub(crate) fn get(
        &self,
        digest: u64,
        uri: &Uri,
        headers: &HeaderMap,
        upstream: &Arc<Upstream>,
    ) -> Arc<Route> {
        if let Some(route) = self.find(digest) {
            return route;
        }
        let made = Arc::new(Route::of(digest, uri, headers, upstream));
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            // A client chooses its path and `Host`, so their number has a bound.
            known.retain(|route| Arc::strong_count(route) > 1);
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
        if self.last.load(Relaxed) != digest {
            self.get(digest, &head.uri, &head.headers, upstream);
            self.last.store(digest, Relaxed);
        }
    }

    /// The route of this digest, if it was in use lately.
    pub(crate) fn find(&self, digest: u64) -> Option<Arc<Route>> {
        let known = self.known.lock();
        let route = known.find(digest, |route| route.digest() == digest)?;
        route.upstream().is_some().then(|| Arc::clone(route))
    }
}

const MAX_KNOWN: usize = 1024;
