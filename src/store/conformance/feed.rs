//! `feed`: explicit ends, heard by everybody who listens. Not asked of a store that has none.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use super::case::{Case, LONG, SHORT, granted, session, terms, terms_of_idle};
use crate::{
    protocol::SessionRef,
    store::{AtLimit, EndReason, Feed, FeedEvent, SessionFilter, SessionStore, Terms},
};

/// Every way to end a session is heard by every listener, with its reference and reason.
pub async fn every_end_is_heard<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    let (Some(first), Some(second)) = (listen(&case).await, listen(&case).await) else {
        return;
    };
    let mut listeners = [first, second];
    let mut expected = Vec::new();
    let owner = case.owner("a");

    for reason in [EndReason::Deleted, EndReason::Revoked, EndReason::InnerGone] {
        let session = case.created(&owner, &terms()).await;
        let ended = store.delete(session.id(), reason).await;
        assert!(ended.expect("delete answers"));
        expected.push((*session.reference(), reason));
    }
    let limited = Terms {
        per_principal: 1.try_into().ok(),
        at_limit: AtLimit::Evict {
            unused: Duration::ZERO,
            untouched: Duration::ZERO,
        },
        ..terms()
    };
    let evicted = case.created(&owner, &limited).await;
    case.time.wait(Duration::from_millis(5)).await;
    let last = case.created(&owner, &limited).await;
    expected.push((*evicted.reference(), EndReason::Evicted));
    assert!(case.delete(&last).await);
    expected.push((*last.reference(), EndReason::Deleted));

    if let Some(directory) = store.directory() {
        let session = case.created(&owner, &terms()).await;
        let reference = session.reference();
        let end = directory.end(&case.scope, reference, EndReason::Revoked);
        assert!(end.await.expect("end answers"));
        expected.push((*reference, EndReason::Revoked));
        for (filter, reason) in [
            (SessionFilter::Owner(owner.clone()), EndReason::Deleted),
            (SessionFilter::Scope(case.scope.clone()), EndReason::Revoked),
        ] {
            let two = [
                case.created(&owner, &terms()).await,
                case.created(&owner, &terms()).await,
            ];
            let ended = directory.end_all(&filter, reason).await;
            assert_eq!(ended.expect("end_all answers"), 2);
            // A store whose clock is coarse needs to see that what is created next began after this.
            case.time.wait(Duration::from_millis(5)).await;
            expected.extend(two.map(|session| (*session.reference(), reason)));
        }
    }

    for listener in &mut listeners {
        let mut missing = expected.clone();
        while !missing.is_empty() {
            let heard = next(&case, listener, PATIENCE).await;
            match heard {
                Some(FeedEvent::Ended { reference, reason }) => {
                    missing.retain(|(ended, why)| {
                        if *ended == reference {
                            assert_eq!(*why, reason, "the reason is the one given");
                        }
                        *ended != reference
                    });
                }
                Some(FeedEvent::Changed { .. } | FeedEvent::Gap) => {}
                None => panic!("these ends are not heard: {missing:?}"),
            }
        }
    }
}

/// What ended nothing is not announced: a second delete, a touch, a creation, a session that never was.
pub async fn an_end_is_announced_once<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(mut feed) = listen(&case).await else {
        return;
    };
    let never = session(&case.anonymous());
    assert!(!case.delete(&never).await);
    let lives = case.created(&case.anonymous(), &terms()).await;
    case.touch(&lives, LONG).await;
    let ended = case.created(&case.anonymous(), &terms()).await;
    assert!(case.delete(&ended).await);
    assert!(!case.delete(&ended).await);
    let heard = heard_until_marker(&case, &mut feed).await;
    let times = |reference| heard.iter().filter(|heard| *heard == reference).count();
    assert_eq!(times(ended.reference()), 1, "an end is announced once");
    assert_eq!(times(never.reference()), 0, "nothing ended here");
    assert_eq!(times(lives.reference()), 0, "it lives");
}

/// Expiry is not announced, also when somebody finds out.
pub async fn expiry_is_not_announced<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(mut feed) = listen(&case).await else {
        return;
    };
    let [deleted, asked] = [
        case.created(&case.anonymous(), &terms_of_idle(SHORT)).await,
        case.created(&case.anonymous(), &terms_of_idle(SHORT)).await,
    ];
    let (_, touch) = case.timed(case.touch(&asked, SHORT)).await;
    case.time.until_over(touch, granted(SHORT)).await;
    assert!(case.touch(&deleted, LONG).await.is_none());
    assert!(
        !case.delete(&deleted).await,
        "a delete of an expired session"
    );
    // A store that cannot says so.
    drop(store.expire(asked.id()).await);
    let heard = heard_until_marker(&case, &mut feed).await;
    assert!(
        !heard.contains(deleted.reference()) && !heard.contains(asked.reference()),
        "expiry is not announced"
    );
}

/// Not among [`CASES`](super::CASES): a listener that reads nothing while this many sessions are ended hears of every
/// one of them later, or of a gap. More than the store keeps for a listener make it a gap.
pub async fn a_slow_listener_misses_nothing_without_a_gap<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
    sessions: usize,
) {
    let case = Case::new(store, wait).await;
    let Some(mut feed) = listen(&case).await else {
        return;
    };
    let mut missing = HashSet::new();
    for _ in 0..sessions {
        let session = case.created(&case.anonymous(), &terms()).await;
        assert!(case.delete(&session).await);
        missing.insert(*session.reference());
    }
    while !missing.is_empty() {
        match next(&case, &mut feed, PATIENCE).await {
            Some(FeedEvent::Ended { reference, .. }) => {
                missing.remove(&reference);
            }
            Some(FeedEvent::Gap) => break,
            Some(FeedEvent::Changed { .. }) => {}
            None => panic!("{} ends are not heard, nor is a gap", missing.len()),
        }
    }
    // After a gap the listener hears on.
    heard_until_marker(&case, &mut feed).await;
}

/// A subscription that is known to hear: until it is established, ends may be missed, if a gap says so.
pub(super) async fn listen<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
) -> Option<Feed> {
    // An end that nobody hears does no harm.
    let unheard = case.created(&case.anonymous(), &terms()).await;
    assert!(case.delete(&unheard).await);

    let mut feed = case.store.feed()?;
    let mut unheard = Vec::new();
    let mut gap = false;
    // More patient each time, so that a slow subscription is heard out before the next end.
    for patience in (0..7).map(|time| PATIENCE / 64 * 2_u32.pow(time)) {
        let decoy = case.created(&case.anonymous(), &terms()).await;
        assert!(case.delete(&decoy).await);
        unheard.push(*decoy.reference());
        while let Some(event) = next(case, &mut feed, patience).await {
            let FeedEvent::Ended { reference, .. } = event else {
                gap |= event == FeedEvent::Gap;
                continue;
            };
            if let Some(missed) = unheard.iter().position(|decoy| *decoy == reference) {
                assert!(
                    missed == 0 || gap,
                    "an end after the subscription was missed without a gap"
                );
                unheard.drain(..=missed);
            }
            if unheard.is_empty() {
                return Some(feed);
            }
        }
    }
    panic!("the feed hears no end");
}

/// Ends a session and returns all ends that are heard until that one is.
async fn heard_until_marker<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    feed: &mut Feed,
) -> Vec<SessionRef> {
    let marker = case.created(&case.anonymous(), &terms()).await;
    assert!(case.delete(&marker).await);
    let mut heard = Vec::new();
    loop {
        match next(case, feed, PATIENCE).await {
            Some(FeedEvent::Ended { reference, .. }) if reference == *marker.reference() => {
                return heard;
            }
            Some(FeedEvent::Ended { reference, .. }) => heard.push(reference),
            Some(FeedEvent::Changed { .. } | FeedEvent::Gap) => {}
            None => panic!("an end is not heard"),
        }
    }
}

/// What is heard next, if anything is within this time.
pub(super) async fn next<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    feed: &mut Feed,
    patience: Duration,
) -> Option<FeedEvent> {
    let mut timeout = pin!(case.time.wait(patience));
    poll_fn(|cx| match feed.as_mut().poll_next(cx) {
        Poll::Ready(Some(event)) => Poll::Ready(Some(event)),
        Poll::Ready(None) => panic!("a feed does not end while its store lives"),
        Poll::Pending => timeout.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// How long an end may take to be heard.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
