//! Calls in flight: who shares them, and what they may not bring back.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn misses_at_the_same_moment_become_one_call() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    let other = created_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let many: Vec<_> = (0..50).map(|_| request_later(&cached, &mine)).collect();
    let another = request_later(&cached, &other);
    settle().await;
    assert_eq!(primary.touches(), 2);
    primary.before.open();
    for one in many.into_iter().chain([another]) {
        assert!(one.await.unwrap().unwrap());
    }
    assert_eq!(primary.touches(), 2);
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_who_waited() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    primary.fail(StoreErrorKind::Failed);
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    primary.before.open();
    for one in both {
        let error = one.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Failed);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("do anything"), "{source}");
    }
    assert_eq!(primary.touches(), 1);
    primary.fail(None);
    assert!(is_live(&cached, &mine).await);
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_is_answered_though_the_first_hangs_up() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let all: [_; 3] = std::array::from_fn(|_| request_later(&cached, &mine));
    settle().await;
    let [first, second, third] = all;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    settle().await;
    second.abort();
    settle().await;
    primary.before.open();
    assert!(third.await.unwrap().unwrap());
    // Its answer is remembered, and nothing is left of the others.
    assert!(matches!(now(&cached, &mine), Now::Live(_)));
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_request_waits_for_is_not_in_flight() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let both = [&mine, &mine].map(|mine| request_later(&cached, mine));
    settle().await;
    assert_eq!(cached.cache.calls.len(), 1);
    both.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!(cached.cache.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_touch_in_flight_does_not_bring_back_what_was_ended_meanwhile() {
    let (primary, cached) = cached_over(Primary {
        has_directory: true,
        ..with_feed()
    });
    is_live(&cached, &session()).await;
    for how in ["delete", "feed", "gap", "directory", "directory, all"] {
        let mine = created_elsewhere(&primary, &terms()).await;
        primary.after.close();
        let early = request_later(&cached, &mine);
        settle().await;
        // The primary has answered, but the answer is not here yet. Meanwhile:
        let end = async {
            let filter = SessionFilter::Owner(mine.owner().clone());
            let directory = cached.directory().unwrap();
            match how {
                "delete" => {
                    let ended = cached.delete(mine.id(), EndReason::Deleted).await;
                    assert!(ended.unwrap());
                }
                "feed" => drop(primary.end_elsewhere(&mine).await),
                "gap" => {
                    primary
                        .store
                        .delete(mine.id(), EndReason::Deleted)
                        .await
                        .unwrap();
                    primary.announce(FeedEvent::Gap);
                }
                "directory" => {
                    let scope = Scope::default();
                    let ended = directory.end(&scope, mine.reference(), EndReason::Revoked);
                    assert!(ended.await.unwrap());
                }
                _ => {
                    let ended = directory.end_all(&filter, EndReason::Revoked).await;
                    assert_eq!(ended.unwrap(), 1);
                }
            }
        };
        // Held up is only the touch: the end has a way of its own.
        primary.bypass.store(true, Relaxed);
        end.await;
        primary.bypass.store(false, Relaxed);
        settle().await;
        // Nor does a request that comes after the end wait for the touch from before it.
        let late = request_later(&cached, &mine);
        settle().await;
        primary.after.open();
        assert!(early.await.unwrap().unwrap(), "{how}: it was live");
        assert!(!late.await.unwrap().unwrap(), "{how}: it is not");
        assert!(!is_live(&cached, &mine).await, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_creation_or_a_claim_in_flight() {
    let (primary, cached) = cached_over(with_feed());
    is_live(&cached, &session()).await;
    let (new, terms) = (session(), terms());
    primary.after.close();
    let mut creation = Box::pin(cached.create(&new, &terms));
    assert!(creation.as_mut().now_or_never().is_none());
    primary.end_elsewhere(&new).await;
    settle().await;
    primary.after.open();
    assert!(matches!(creation.await, Ok(Created::New { .. })));
    assert_eq!(cached.cache.entries.len().0, 0);

    let (me, anonymous) = (owner("me"), session_of(&owner(None)));
    primary.store.create(&anonymous, &terms).await.unwrap();
    primary.after.close();
    let mut claim = Box::pin(cached.claim(anonymous.id(), &me, HOUR));
    assert!(claim.as_mut().now_or_never().is_none());
    primary.end_elsewhere(&anonymous).await;
    settle().await;
    primary.after.open();
    assert!(claim.await.unwrap().is_some(), "it was live");
    let now = cached.touch_now(anonymous.id(), &me, HOUR);
    assert!(matches!(now, Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn what_was_found_live_is_not_absent() {
    let (primary, cached) = cached();
    // Asked for a shorter and for a longer time; between the two answers another node creates it.
    let mine = session();
    primary.before.close();
    let short = cached.touch(mine.id(), mine.owner(), MINUTE);
    let long = cached.touch(mine.id(), mine.owner(), HOUR);
    let (mut short, mut long) = (Box::pin(short), Box::pin(long));
    assert!(long.as_mut().now_or_never().is_none());
    assert!(short.as_mut().now_or_never().is_none());
    primary.before.open();
    assert!(long.await.unwrap().is_none());
    primary.store.create(&mine, &terms()).await.unwrap();
    assert!(short.await.unwrap().is_some());
    assert!(matches!(now(&cached, &mine), Now::Unknown));
}

#[tokio::test(start_paused = true)]
async fn only_the_same_touch_is_waited_for() {
    let (primary, cached) = cached();
    let mine = created_elsewhere(&primary, &terms()).await;
    primary.before.close();
    let stranger = owner("you");
    let mut same = Box::pin(cached.touch(mine.id(), mine.owner(), HOUR));
    let mut theirs = Box::pin(cached.touch(mine.id(), &stranger, HOUR));
    let mut longer = Box::pin(cached.touch(mine.id(), mine.owner(), 2 * HOUR));
    for touch in [&mut same, &mut theirs, &mut longer] {
        assert!(touch.as_mut().now_or_never().is_none());
    }
    assert_eq!(primary.touches(), 3);
    primary.before.open();
    assert!(same.await.unwrap().is_some());
    assert!(theirs.await.unwrap().is_none());
    let longer = longer.await.unwrap().unwrap();
    assert_eq!(longer.idle_left, 2 * HOUR + STALENESS);
}
