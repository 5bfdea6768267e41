//! Finding a request's session where this process's memory could not tell.

use crate::{
    lifecycle::Lifecycle,
    protocol::{RejectionKind, SessionId},
    session::{InFlight, Owner},
    store::StoreErrorKind,
};

/// Finds a live session of this caller; for a login, where that is allowed, an anonymous one too.
pub(super) async fn look_up(
    lifecycle: &Lifecycle,
    id: &SessionId,
    caller: &Owner,
) -> Result<InFlight, RejectionKind> {
    let Lifecycle {
        settings,
        store,
        alive,
    } = lifecycle;
    let mut found = store.touch(id, caller, settings.idle).await;
    if settings.may_claim(caller)
        && let Ok(None) = found
    {
        found = match store.claim(id, caller, settings.idle).await {
            Err(error) if error.kind() == StoreErrorKind::Unsupported => Ok(None),
            claimed => claimed,
        };
    }
    match found {
        Ok(Some(found)) => {
            let is_anonymous = caller.principal.is_none();
            alive.registry.enter(found, is_anonymous)
        }
        Ok(None) => Err(RejectionKind::Unknown),
        Err(error) => {
            tracing::warn!(session = %id.reference(), error = &error as &dyn std::error::Error, "could not look up a session");
            Err(RejectionKind::StoreUnavailable)
        }
    }
}

/// As [`look_up`], but extends nothing: what the inner service has forgotten is not in use.
pub(super) async fn look_up_marked(
    lifecycle: &Lifecycle,
    id: &SessionId,
    caller: &Owner,
) -> Result<InFlight, RejectionKind> {
    match lifecycle.store.load(id).await {
        Ok(Some(found)) if found.session.owner() == caller => {
            let is_anonymous = caller.principal.is_none();
            lifecycle.alive.registry.enter(found, is_anonymous)
        }
        Ok(Some(_)) => look_up(lifecycle, id, caller).await,
        Ok(None) => Err(RejectionKind::Unknown),
        Err(error) => {
            tracing::warn!(session = %id.reference(), error = &error as &dyn std::error::Error, "could not look up a session");
            Err(RejectionKind::StoreUnavailable)
        }
    }
}
