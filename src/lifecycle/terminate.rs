//! Ending a session: at its client's word, at an operator's, at the inner service's, or because it ended elsewhere.

use std::sync::Arc;

use super::{Lifecycle, SessionEvent};
use crate::{
    metrics,
    protocol::{SessionId, SessionRef},
    registry::Ended,
    session::{Session, times},
    store::{EndReason, SessionFilter, StoreError, StoreErrorKind},
};

/// Deletes a session from the store and ends it here. If the store cannot tell, the session is refused here from now
/// on, and the store is asked until it answers.
pub(super) async fn end(
    lifecycle: &Arc<Lifecycle>,
    session: &Session,
    reason: EndReason,
) -> Result<bool, StoreError> {
    // That may be so long ago that nothing else remembers its announcement.
    let had_ended = session.has_ended();
    let deleted = lifecycle.store.delete(session.id(), reason).await;
    if deleted.is_err() {
        delete_in_background(lifecycle, session.id().clone(), reason);
    }
    if !had_ended {
        end_in_registry(lifecycle, session.reference(), reason);
    }
    deleted
}

/// Ends a session that the inner service has forgotten.
pub(super) async fn end_forgotten(lifecycle: &Arc<Lifecycle>, session: &Session) {
    // Its client is told the same, whether the store has forgotten it yet or not.
    let _ = end(lifecycle, session, EndReason::InnerGone).await;
    lifecycle.notify_inner(session);
}

/// Deletes a session however long it takes. Until then this node refuses it.
pub(super) fn delete_in_background(lifecycle: &Arc<Lifecycle>, id: SessionId, reason: EndReason) {
    let lifecycle = Arc::clone(lifecycle);
    let reference = id.reference();
    lifecycle.alive.registry.delete_pending(&reference);
    tokio::spawn(async move {
        lifecycle.store.delete_until_answered(&id, reason).await;
        lifecycle.alive.registry.delete_done(&reference);
    });
}

/// Ends what is open here of a session that the store no longer holds, and notifies the inner service, which did not
/// see it.
pub(crate) fn end_here(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) {
    notify_of(lifecycle, end_in_registry(lifecycle, reference, reason));
}

/// As [`end_here`], of this session and no other: its id may have been issued again.
pub(super) fn end_this(lifecycle: &Lifecycle, session: &Session, reason: EndReason) {
    let announce = |served: Option<&_>| announce(lifecycle, session.reference(), reason, served);
    let ended = lifecycle.alive.registry.end_this(session, announce);
    notify_of(lifecycle, unmarked(lifecycle, ended));
}

/// As [`end_here`], for an end that was heard from elsewhere.
pub(super) fn end_heard(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) {
    let announce = |session: Option<&_>| announce(lifecycle, reference, reason, session);
    let ended = lifecycle.alive.registry.end_heard(reference, announce);
    notify_of(lifecycle, unmarked(lifecycle, ended));
}

fn notify_of(lifecycle: &Lifecycle, ended: Ended) {
    if let Ended::Served(session) = ended {
        lifecycle.notify_inner(&session);
    }
}

fn end_in_registry(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) -> Ended {
    let announce = |session: Option<&_>| announce(lifecycle, reference, reason, session);
    let ended = lifecycle.alive.registry.end(reference, announce);
    unmarked(lifecycle, ended)
}

fn unmarked(lifecycle: &Lifecycle, ended: Ended) -> Ended {
    if let Ended::Served(session) = &ended
        && lifecycle.alive.marked.contains(session.id())
    {
        lifecycle.alive.marked.forget(session);
    }
    ended
}

/// Announces the end of a session whose id the inner service has issued again. It is not told: it means the new one by that id.
pub(super) fn announce_replaced(lifecycle: &Lifecycle, session: &Session) {
    let reason = reason_by_time(session).unwrap_or(EndReason::Deleted);
    announce(lifecycle, session.reference(), reason, Some(session));
}

/// Why a session is gone if its time is up.
pub(super) fn reason_by_time(session: &Session) -> Option<EndReason> {
    let (now, times) = (times::now(), session.times());
    if times.end_of_life() <= now {
        return Some(EndReason::Lifetime);
    }
    (times.until() <= now).then_some(EndReason::Idle)
}

/// `session` is the one that this node served, if it did.
fn announce(
    lifecycle: &Lifecycle,
    reference: &SessionRef,
    reason: EndReason,
    session: Option<&Session>,
) {
    if let Some(session) = session {
        let error = (reason == EndReason::InnerGone).then(|| reason.as_str());
        metrics::session_ended(reason.as_str(), error, || {
            let age = session.times().age(times::now());
            (age, session.protocol_version())
        });
    }
    lifecycle.alive.admission.open();
    lifecycle.alive.events.announce(SessionEvent::Ended {
        reference: *reference,
        reason,
    });
}

/// Ends a session at an operator's word, here and on every node that shares the store, and says whether it was live.
///
/// # Errors
///
/// When the store cannot tell whether it took effect.
pub(crate) async fn revoke(
    lifecycle: &Lifecycle,
    reference: &SessionRef,
) -> Result<bool, StoreError> {
    let reason = EndReason::Revoked;
    let ended = match lifecycle.alive.registry.get(reference) {
        // Its id is known here, so that the store need not search.
        Some(session) => lifecycle.store.delete(session.id(), reason).await?,
        None => {
            let directory = lifecycle.store.directory();
            let directory = directory.ok_or_else(|| unsupported("end a session"))?;
            let scope = &lifecycle.settings.anonymous.scope;
            directory.end(scope, reference, reason).await?
        }
    };
    if ended {
        end_here(lifecycle, reference, reason);
    }
    Ok(ended)
}

/// As [`revoke`], for all sessions that are meant. Those that began to be created before are refused.
pub(crate) async fn revoke_all(
    lifecycle: &Lifecycle,
    filter: &SessionFilter,
) -> Result<u64, StoreError> {
    let directory = lifecycle.store.directory();
    let directory = directory.ok_or_else(|| unsupported("end sessions"))?;
    let alive = &lifecycle.alive;
    let before = alive.registry.sessions();
    alive.admission.revoke(filter);
    let ended = directory.end_all(filter, EndReason::Revoked).await?;
    // An anonymous session may have become somebody's on another node, and then it was not meant.
    let is_certain = !matches!(filter, SessionFilter::Owner(owner) if owner.principal.is_none());
    for session in before {
        if is_certain && filter.includes(session.owner()) {
            end_this(lifecycle, &session, EndReason::Revoked);
        }
    }
    // Of those that came meanwhile, too, some were ended and some were not: ask.
    for session in alive.registry.sessions() {
        if filter.includes(session.owner()) {
            let tracker = &alive.registry.tracker;
            tracker.wake(crate::session::Wake::Check(session));
        }
    }
    Ok(ended)
}

fn unsupported(doing: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, doing)
}
