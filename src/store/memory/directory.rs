//! Listing, counting and ending sessions by owner and reference.
//!
//! The table is keyed by the id, so that a request pays for nothing here. Reading by anything else walks over it, shard by
//! shard, and lets other tasks run in between.

use std::collections::BTreeMap;

use tokio::task::yield_now;

use super::{Inner, MemoryStore, found};
use crate::{
    protocol::SessionRef,
    session::{Scope, Session, SessionRecord, times},
    store::{BoxFuture, Directory, EndReason, Found, SessionFilter, SessionInfo, StoreError},
};

impl Directory for MemoryStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            // One number that is right at one instant: a walk would count twice what ended behind it and was created
            // ahead of it.
            self.0.purge(times::now()).await;
            if let SessionFilter::Scope(scope) = filter {
                let scope = self.0.scopes.get(scope);
                return Ok(scope.map_or(0, |scope| scope.sessions()));
            }
            if let SessionFilter::Owner(owner) = filter
                && let Some(owned) = self.0.owners.lock(owner)
            {
                return Ok(owned.count());
            }
            let mut count = 0;
            self.0.visit(filter, |_| count += 1).await;
            Ok(count)
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let mut page = BTreeMap::new();
            self.0
                .visit(filter, |session| {
                    let reference = session.reference();
                    let full = page.len() == at_most;
                    let last = page.last_key_value().map(|(last, _)| *last);
                    if after.is_some_and(|after| reference <= after)
                        || full && last.is_none_or(|last| *reference > last)
                    {
                        return;
                    }
                    let now = times::now();
                    if let Some(until) = session.times().live_until(now) {
                        if full {
                            page.pop_last();
                        }
                        page.insert(*reference, found(session, now, until));
                    }
                })
                .await;
            Ok(page.values().map(info_of).collect())
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut meant = None;
            self.0
                .visit(&SessionFilter::Scope(scope.clone()), |session| {
                    if session.reference() == reference {
                        meant = Some(session.clone());
                    }
                })
                .await;
            let ended = meant.and_then(|meant| {
                let hash = self.0.hash(&meant);
                let is_meant = |session: &Session| {
                    session.reference() == reference && session.owner().scope == *scope
                };
                self.0.end(hash, times::now(), reason, is_meant)
            });
            Ok(ended.is_some())
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            // First, so that a creation that this does not see sees this.
            self.0.revocations.add(filter, times::now);
            let mut sessions = Vec::new();
            self.0
                .visit(filter, |session| sessions.push(session.clone()))
                .await;
            let mut ended = 0;
            for (nth, session) in sessions.into_iter().enumerate() {
                if nth % YIELD_EVERY == YIELD_EVERY - 1 {
                    yield_now().await;
                }
                let hash = self.0.hash(&session);
                let is_meant =
                    |other: &Session| other.is(&session) && filter.includes(other.owner());
                let gone = self.0.end(hash, times::now(), reason, is_meant);
                ended += u64::from(gone.is_some());
            }
            Ok(ended)
        })
    }
}

impl Inner {
    /// Shows each live session that the filter includes.
    async fn visit(&self, filter: &SessionFilter, mut see: impl FnMut(&Session) + Send) {
        let mut see = |session: &Session, now| {
            if filter.includes(session.owner()) && session.times().live_until(now).is_some() {
                see(session);
            }
        };
        let owned = match filter {
            SessionFilter::Owner(owner) => self
                .owners
                .lock(owner)
                .map(|owned| owned.some(usize::MAX, 0)),
            SessionFilter::Scope(_) => None,
        };
        if let Some(sessions) = owned {
            for some in sessions.chunks(YIELD_EVERY) {
                let now = times::now();
                some.iter().for_each(|session| see(session, now));
                yield_now().await;
            }
        } else if self.scopes.get(filter.scope()).is_some() {
            for shard in &self.shards {
                {
                    let now = times::now();
                    shard.read().iter().for_each(|session| see(session, now));
                }
                yield_now().await;
            }
        }
    }
}

fn info_of(found: &Found) -> SessionInfo {
    let record = found.session.record();
    SessionInfo {
        reference: *found.session.reference(),
        record: SessionRecord {
            initialize_params: None,
            ..record.clone()
        },
        age: found.age,
        idle_left: found.idle_left,
        life_left: found.life_left,
    }
}

/// After how many sessions other tasks may run.
const YIELD_EVERY: usize = 64;
