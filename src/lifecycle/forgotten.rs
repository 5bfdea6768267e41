//! Sessions that the inner service has forgotten, as it says: their clients are told 404. They end where that is certain.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Lifecycle, background,
    forwarded::Forwarded,
    over::over_if_idle,
    question::{self, ask},
    terminate::{end_forgotten, end_this},
};
use crate::{
    session::{Owner, Session, Verdict},
    store::{EndReason, Found, Limit, StoreError},
};

/// Whether the inner service knows the session that this answer was given on. Asks it, or whoever asks already.
pub(super) async fn judge(lifecycle: &Lifecycle, forwarded: &Forwarded) -> Verdict {
    let session = forwarded.session();
    let judging = async {
        // Before anybody has the turn: the trial may be about this very session.
        if question::is_in_vain(lifecycle, session).await {
            return Verdict::Undecided;
        }
        let credentials = forwarded.credentials.digest(&lifecycle.alive.questions.key);
        let doubts = session.doubts();
        let mut asking = doubts.ask().await;
        if let Some(verdict) = asking.kept(credentials) {
            return verdict;
        }
        let heard = ask(lifecycle, session, &forwarded.credentials).await;
        asking.keep(heard.verdict, credentials);
        heard.verdict
    };
    let verdict = timeout(PATIENCE, judging).await;
    verdict.unwrap_or(Verdict::Undecided)
}

/// Whether the caller is the one whose session it is: nobody else's word ends it. A token that was renewed since is not
/// believed; that costs a late end, never a wrong one.
pub(super) fn believes(lifecycle: &Lifecycle, forwarded: &Forwarded) -> bool {
    let session = forwarded.session();
    let credentials = || forwarded.credentials.digest(&lifecycle.alive.questions.key);
    session.owner().principal.is_some() || session.creator() == credentials()
}

/// Whether this process's inner service has had the session. If not, another node's may have it.
pub(super) fn has_served(session: &Session) -> bool {
    session.creator() != 0 || session.state().now().is_served()
}

/// Ends a session that the inner service has forgotten, or marks it where that is not certain.
pub(super) async fn conclude(lifecycle: &Arc<Lifecycle>, forwarded: &Forwarded) {
    let session = forwarded.session().clone();
    let is_believed = believes(lifecycle, forwarded);
    if is_believed
        && has_served(&session)
        && let Ok(place) = lifecycle.alive.background.begin()
    {
        let lifecycle = Arc::clone(lifecycle);
        let work = async move {
            let _place = place;
            // Its client may be ending it just now, and is to hear of that.
            let _turn = session.doubts().turn().await;
            if !session.has_ended() {
                end_forgotten(&lifecycle, &session).await;
            }
        };
        background::run(work).await;
    } else {
        mark(lifecycle, forwarded, is_believed);
    }
}

/// Marks a session that is not ended. While its owner uses it here, a stranger's word is worth less than another's.
pub(super) fn mark(lifecycle: &Lifecycle, forwarded: &Forwarded, is_believed: bool) {
    let session = forwarded.session();
    let is_credible = is_believed || !has_served(session);
    lifecycle.alive.marked.add(session, is_credible);
}

/// Ends one of the sessions that seem to be forgotten, so that there is room for another of this owner.
pub(super) async fn make_room(lifecycle: &Lifecycle, limit: Limit, owner: &Owner) -> bool {
    let Lifecycle { store, alive, .. } = lifecycle;
    let which = |session: &Session| limit == Limit::Total || session.owner() == owner;
    for mark in alive.marked.oldest(which) {
        let session = mark.session;
        if session.is_in_use() {
            continue;
        }
        let ended = if mark.is_credible && !store.is_shared() {
            // No other process can be using it.
            let ended = store.delete(session.id(), EndReason::Evicted).await;
            if ended.is_ok() {
                end_this(lifecycle, &session, EndReason::Evicted);
            }
            ended
        } else {
            end_unused(lifecycle, &session, EndReason::Evicted).await
        };
        if let Ok(true) = ended {
            return true;
        }
    }
    false
}

/// Ends a session that no node has touched for a beat, and says whether it did.
pub(super) async fn end_unused(
    lifecycle: &Lifecycle,
    session: &Session,
    reason: EndReason,
) -> Result<bool, StoreError> {
    let (settings, store) = (&lifecycle.settings, &lifecycle.store);
    let (is_over, ended) = match store.load(session.id()).await? {
        Some(found) if is_unused(lifecycle, &found) => {
            let left = settings.idle - settings.beat();
            let ended = over_if_idle(store, session.id(), left, reason).await?;
            (ended, ended)
        }
        Some(_) => (false, false),
        // It is gone already, and now for certain.
        None => (true, store.delete(session.id(), reason).await?),
    };
    if is_over {
        end_this(lifecycle, session, reason);
    }
    Ok(ended)
}

/// As [`end_unused`], for those of this node's sessions that are picked. How many it has ended.
///
/// # Errors
///
/// When the store cannot tell of one of them. The others have been looked at.
pub(crate) async fn end_all_unused(
    lifecycle: &Lifecycle,
    picks: impl Fn(&Session) -> bool,
) -> Result<u64, StoreError> {
    let (mut ended, mut failed) = (0, None);
    for session in lifecycle.alive.registry.sessions() {
        if !session.is_in_use() && picks(&session) {
            match end_unused(lifecycle, &session, EndReason::Revoked).await {
                Ok(has_ended) => ended += u64::from(has_ended),
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(ended), Err)
}

/// Whether no node has touched a session for as long as the time between two touches of one in use.
fn is_unused(lifecycle: &Lifecycle, found: &Found) -> bool {
    let settings = &lifecycle.settings;
    let is_near_its_end = found.life_left.is_some_and(|left| left <= settings.idle);
    // Near the end of its life the time left says nothing of its last touch.
    !is_near_its_end
        && found.age >= settings.beat()
        && found.idle_left + settings.beat() <= settings.idle
}

/// With the wait for others that ask about the same session.
const PATIENCE: Duration = Duration::from_secs(5);
