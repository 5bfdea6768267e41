//! Letting a session be created: within the rates and the limits, before the inner service is asked.

use std::time::Duration;

use http::request::Parts;
use tokio::time::Instant;

use super::{
    Lifecycle,
    admission::Slot,
    forgotten,
    notices::{Cap, Met},
    terminate::end_here,
};
use crate::{
    protocol::{Rejection, RejectionKind, SessionId, SessionRef},
    session::{Issuer, Owner, Session, SessionRecord},
    store::{AtLimit, Created, EndReason, Limit, StoreError, StoreErrorKind, Terms},
    sync::atomic::Ordering::Relaxed,
};

impl Lifecycle {
    /// Takes a place within the limits, for a creation that began then and would get this id. The store is asked too: so
    /// nothing is sent inward while it is away or full.
    pub(super) async fn admit(
        &self,
        head: &Parts,
        owner: &Owner,
        (started, id): (Instant, &SessionId),
    ) -> Result<Slot, Rejection> {
        let Self {
            settings, alive, ..
        } = self;
        if alive.is_draining.load(Relaxed) {
            return Err(Rejection::new(RejectionKind::Draining));
        }
        if let Err((cap, wait)) = settings.rates.take(head, owner) {
            alive.notices.note(cap, Met::Refused);
            return Err(Rejection::new(RejectionKind::TooManyCreations).with_retry_in(wait));
        }
        if alive.admission.is_closed(owner) && alive.marked.is_empty() {
            return Err(self.full(Limit::Total));
        }
        let slot = alive.admission.reserve(owner);
        let terms = settings.terms(owner, started.elapsed());
        let made = match slot.within(terms) {
            Ok(terms) => self.make_room(owner, id, &terms).await,
            Err(limit) => Ok(Created::Full(limit)),
        };
        match made {
            Ok(Created::New { evicted, .. }) => self.note_evicted(owner, evicted),
            Ok(Created::Full(limit)) => {
                if limit == Limit::Total && !slot.has_others_ahead() {
                    alive.admission.close(owner);
                }
                return Err(self.full(limit));
            }
            Ok(Created::Revoked) => return Err(Rejection::new(RejectionKind::Revoked)),
            Ok(Created::Exists) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no session is created while the store is away"
                );
                return Err(Rejection::new(RejectionKind::StoreUnavailable));
            }
        }
        Ok(slot)
    }

    /// Has the store make room. Sessions that the inner service seems to have forgotten go before all others.
    async fn make_room(
        &self,
        owner: &Owner,
        id: &SessionId,
        terms: &Terms,
    ) -> Result<Created, StoreError> {
        let record = SessionRecord::new(owner.clone(), Issuer::Layer);
        let newcomer = Session::new(id.clone(), record);
        if !self.alive.marked.is_empty() {
            let refusing = Terms {
                at_limit: AtLimit::Refuse,
                ..terms.clone()
            };
            if let Ok(Created::Full(limit)) = self.store.make_room(&newcomer, &refusing).await {
                forgotten::make_room(self, limit, owner).await;
            }
        }
        match self.store.make_room(&newcomer, terms).await {
            // What the store cannot say before it says at the creation. Whether it answers at all, it can.
            Err(error) if error.kind() == StoreErrorKind::Unsupported => {
                self.store.load(id).await?;
                Ok(Created::New {
                    left: None,
                    evicted: None,
                })
            }
            made => made,
        }
    }

    /// Refuses a session at a limit.
    pub(super) fn full(&self, limit: Limit) -> Rejection {
        let (cap, wait) = match limit {
            Limit::Total => (Cap::Sessions, self.room_in()),
            Limit::PerPrincipal => (Cap::SessionsOfPrincipal, RETRY_OF_PRINCIPAL),
        };
        self.alive.notices.note(cap, Met::Refused);
        Rejection::new(RejectionKind::Full).with_retry_in(wait)
    }

    /// Ends here what the store has evicted for a session of this owner.
    pub(super) fn note_evicted(&self, owner: &Owner, evicted: Option<SessionRef>) {
        let Some(evicted) = evicted else {
            return;
        };
        let is_limited = self.settings.per_principal.is_some();
        let cap = match owner.principal.is_some() && is_limited {
            true => Cap::SessionsOfPrincipal,
            false => Cap::Sessions,
        };
        self.alive.notices.note(cap, Met::Evicted);
        end_here(self, &evicted, EndReason::Evicted);
    }
}

/// When a principal that has all its sessions may try again, as far as anybody can say.
const RETRY_OF_PRINCIPAL: Duration = Duration::from_secs(30);
