//! The primary's directory. What is ended through it is forgotten at once, with or without a feed.

use super::{
    CachedStore,
    cache::{Cache, Forget},
};
use crate::{
    protocol::SessionRef,
    session::Scope,
    store::{
        BoxFuture, Directory, EndReason, SessionFilter, SessionInfo, SessionStore, StoreError,
        StoreErrorKind,
    },
};

impl<S: SessionStore> Directory for CachedStore<S> {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        match self.store.directory() {
            Some(directory) => directory.count(filter),
            None => none("count sessions"),
        }
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        match self.store.directory() {
            Some(directory) => directory.list(filter, after, at_most),
            None => none("list sessions"),
        }
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let Some(directory) = self.store.directory() else {
            return none("end a session");
        };
        Box::pin(async move {
            self.listen();
            let _forget = Forget::later(&self.cache, *reference);
            directory.end(scope, reference, reason).await
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let Some(directory) = self.store.directory() else {
            return none("end sessions");
        };
        Box::pin(async move {
            self.listen();
            let _forget = ForgetAll(&self.cache, filter);
            directory.end_all(filter, reason).await
        })
    }
}

/// Forgets these sessions when it is dropped.
struct ForgetAll<'a>(&'a Cache, &'a SessionFilter);

impl Drop for ForgetAll<'_> {
    fn drop(&mut self) {
        let Self(cache, filter) = self;
        cache.forget_all(|session| filter.includes(session.owner()));
    }
}

/// Not reached: without a directory behind it, this one is not handed out.
fn none<T: Send + 'static>(doing: &'static str) -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async move { Err(StoreError::new(StoreErrorKind::Unsupported, doing)) })
}
