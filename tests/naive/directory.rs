//! The directory.

use mcp_session_layer::{
    Scope, SessionRef,
    store::{BoxFuture, Directory, EndReason, SessionFilter, SessionInfo, StoreError},
};
use tokio::time::Instant;

use super::{NaiveStore, defect::Defect::*};

impl Directory for NaiveStore {
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async {
            let state = self.state();
            let counted = state.rows.values();
            let counted = counted.filter(|row| filter.includes(row.session.owner()));
            Ok(counted.count() as u64)
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let state = self.state();
            let is_after = |reference: &SessionRef| match after {
                Some(after) if self.has(ListRepeats) => reference >= after,
                Some(after) => reference > after,
                None => true,
            };
            let mut listed: Vec<_> = state
                .rows
                .values()
                .filter(|row| filter.includes(row.session.owner()))
                .filter(|row| is_after(row.session.reference()))
                .map(|row| {
                    let found = self.found(row);
                    let mut record = found.session.record();
                    record.initialize_params = None;
                    SessionInfo {
                        reference: *found.session.reference(),
                        record,
                        age: found.age,
                        idle_left: found.idle_left,
                        life_left: found.life_left,
                    }
                })
                .collect();
            listed.sort_by_key(|listed| listed.reference);
            if self.has(ListSkips) && after.is_some() && !listed.is_empty() {
                listed.remove(0);
            }
            listed.truncate(at_most);
            Ok(listed)
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut state = self.state();
            let row = state.rows.get(reference);
            let is_here = row.is_some_and(|row| {
                row.session.owner().scope == *scope || self.has(EndIgnoresTheScope)
            });
            Ok(is_here && self.remove(&mut state, reference, reason))
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut state = self.state();
            state.revoked.push((filter.clone(), Instant::now()));
            let meant = state.rows.values();
            let meant = meant.filter(|row| filter.includes(row.session.owner()));
            let mut meant: Vec<_> = meant.map(|row| *row.session.reference()).collect();
            for reference in meant.iter().skip(usize::from(self.has(EndAllForgetsOne))) {
                self.remove(&mut state, reference, reason);
            }
            meant.dedup();
            Ok(meant.len() as u64)
        })
    }
}
