//! A store of one's own, and the proof that it keeps the contract.
//!
//! ```sh
//! cargo run --features conformance --example own_store
//! ```
//!
//! Sessions are rows in a map here. In a database each method is one statement, and `now` is the database's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mcp_session_layer::{
    Owner, Session, SessionId, SessionStore, conformance,
    store::{AtLimit, Created, EndReason, Found, Limit, StoreError, Terms},
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The clock stands still while anybody works, so that nothing has to be waited for.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let store = Arc::new(MyStore::default());
    conformance::all(&store, tokio::time::sleep).await;
    println!("ok: {} cases", conformance::CASES.len());
}

#[derive(Default)]
pub(crate) struct MyStore {
    rows: Mutex<HashMap<SessionId, Row>>,
}

struct Row {
    session: Session,
    created: Instant,
    touched: Instant,
    is_used: bool,
    /// `None`: farther away than a clock can tell.
    idle_end: Option<Instant>,
    life_end: Option<Instant>,
}

impl Row {
    /// `None`, once its time is up.
    fn found(&self, now: Instant) -> Option<Found> {
        let left = |end: Option<Instant>| end.map(|end| end.saturating_duration_since(now));
        let life_left = left(self.life_end);
        let idle_left = left(self.idle_end).unwrap_or(Duration::MAX);
        let idle_left = life_left.map_or(idle_left, |life| life.min(idle_left));
        (!idle_left.is_zero()).then(|| Found {
            session: self.session.clone(),
            age: now - self.created,
            idle_left,
            life_left,
        })
    }
}

impl SessionStore for MyStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let now = Instant::now();
        let owner = session.owner();
        let mut rows = self.rows.lock();
        rows.retain(|_, row| row.found(now).is_some());
        if rows.contains_key(session.id()) {
            return Ok(Created::Exists);
        }
        let per_principal = owner.principal.as_ref().and(terms.per_principal);
        let anonymous = Owner {
            principal: None,
            ..owner.clone()
        };
        let mut evicted = None;
        // A principal at its limit makes room for itself.
        for (limit, most) in [
            (Limit::PerPrincipal, per_principal),
            (Limit::Total, terms.total),
        ] {
            let counted = |row: &&Row| match limit {
                Limit::PerPrincipal => row.session.owner() == owner,
                Limit::Total => row.session.owner().scope == owner.scope,
            };
            let count = rows.values().filter(counted).count() as u64;
            if most.is_none_or(|most| count < most.get()) {
                continue;
            }
            let AtLimit::Evict { unused, untouched } = terms.at_limit else {
                return Ok(Created::Full(limit));
            };
            let may_go = |row: &&Row| {
                let wait = if row.is_used { untouched } else { unused };
                // A principal's session is never ended for somebody else's.
                let is_open = limit == Limit::PerPrincipal || row.session.owner() == &anonymous;
                is_open && now - row.touched >= wait
            };
            let idle = rows.values().filter(counted).filter(may_go);
            let Some(oldest) = idle.min_by_key(|row| (row.is_used, row.touched)) else {
                return Ok(Created::Full(limit));
            };
            let id = oldest.session.id().clone();
            evicted = Some(id.reference());
            rows.remove(&id);
        }
        let row = Row {
            session: session.clone(),
            created: now,
            touched: now,
            is_used: false,
            idle_end: now.checked_add(terms.initial_idle.min(terms.idle)),
            life_end: terms.life.and_then(|life| now.checked_add(life)),
        };
        rows.insert(session.id().clone(), row);
        Ok(Created::New {
            left: None,
            evicted,
        })
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let rows = self.rows.lock();
        Ok(rows.get(id).and_then(|row| row.found(Instant::now())))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let now = Instant::now();
        let mut rows = self.rows.lock();
        let row = rows.get_mut(id);
        let live = row.filter(|row| row.session.owner() == owner && row.found(now).is_some());
        Ok(live.and_then(|row| {
            row.touched = now;
            row.is_used = true;
            // A touch never shortens.
            row.idle_end = match (row.idle_end, now.checked_add(idle)) {
                (Some(end), Some(later)) => Some(end.max(later)),
                _ => None,
            };
            row.found(now)
        }))
    }

    async fn delete(&self, id: &SessionId, _reason: EndReason) -> Result<bool, StoreError> {
        let row = self.rows.lock().remove(id);
        Ok(row.is_some_and(|row| row.found(Instant::now()).is_some()))
    }
}
