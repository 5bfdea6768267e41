//! How long sessions live, and how many.

use std::{num::NonZeroU64, time::Duration};

use mcp_session_layer::{MemoryStore, RejectionKind};
use tokio::time::sleep;
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{create, guard, over, plant},
    support::{
        answers::send,
        layer::user_header,
        requests::{as_user, initialize, on, post},
        sessions::{is_live, owner},
        time::{HOUR, MINUTE, SECOND},
    },
};

#[tokio::test(start_paused = true)]
async fn a_session_may_be_idle_for_an_hour() {
    let inner = Inner::silent();
    let (_, service) = guard(&inner);
    let id = create(&service, &inner).await;
    assert_eq!(send(&service, post(&id)).await.status, 200);
    for _ in 0..3 {
        sleep(HOUR - SECOND).await;
        assert_eq!(send(&service, post(&id)).await.status, 200);
    }
    sleep(HOUR).await;
    inner.calls();
    send(&service, post(&id))
        .await
        .assert_not_found(RejectionKind::Unknown);
    assert!(inner.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_never_used_lives_for_five_minutes() {
    let inner = Inner::silent();
    let (_, service) = guard(&inner);
    let used = create(&service, &inner).await;
    let unused = create(&service, &inner).await;
    sleep(5 * MINUTE - SECOND).await;
    assert_eq!(send(&service, post(&used)).await.status, 200);
    sleep(SECOND).await;
    send(&service, post(&unused))
        .await
        .assert_not_found(RejectionKind::Unknown);
    assert_eq!(send(&service, post(&used)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_idle_time_is_a_setting_and_a_second_at_least() {
    for (asked, is) in [(10 * SECOND, 10 * SECOND), (Duration::ZERO, SECOND)] {
        let inner = Inner::silent();
        let store = MemoryStore::new();
        let service = over(&store).with_idle_timeout(asked).layer(inner.clone());
        for first_used in [true, false] {
            let id = create(&service, &inner).await;
            if first_used {
                assert_eq!(send(&service, post(&id)).await.status, 200);
            }
            sleep(is - SECOND / 10).await;
            assert!(is_live(&store, &id).await);
            sleep(SECOND / 10).await;
            assert_eq!(send(&service, post(&id)).await.status, 404);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_has_an_end_however_busy_it_is() {
    let inner = Inner::silent();
    let store = MemoryStore::new();
    let service = over(&store)
        .with_max_lifetime(2 * HOUR)
        .layer(inner.clone());
    let id = create(&service, &inner).await;
    for _ in 0..119 {
        sleep(MINUTE).await;
        assert_eq!(send(&service, post(&id)).await.status, 200);
    }
    sleep(MINUTE).await;
    assert_eq!(send(&service, post(&id)).await.status, 404);
}

/// The inner service is told of an end that came with time.
#[tokio::test(start_paused = true)]
async fn the_inner_service_is_told_when_the_time_is_up() {
    let inner = Inner::issuing(&["theirs"]);
    let (_, service) = guard(&inner);
    create(&service, &inner).await;
    sleep(5 * MINUTE - SECOND).await;
    assert!(inner.told().await.is_empty());
    sleep(MINUTE).await;
    assert_eq!(inner.told().await, ["theirs"]);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many_sessions_and_no_more() {
    let inner = Inner::silent();
    let store = MemoryStore::new();
    let two = NonZeroU64::new(2).unwrap();
    let layer = over(&store).with_max_sessions(two).without_eviction();
    let service = layer.layer(inner.clone());
    let first = create(&service, &inner).await;
    create(&service, &inner).await;
    for _ in 0..3 {
        let answer = send(&service, initialize()).await;
        answer.assert_unavailable(RejectionKind::Full);
        assert!(
            inner.calls().is_empty(),
            "known before the inner service is called"
        );
    }
    // Later it has to be found out anew.
    sleep(10 * SECOND).await;
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::Full);
    inner.calls();
    assert_eq!(send(&service, post(&first)).await.status, 200);

    assert_eq!(send(&service, on(&first, "DELETE")).await.status, 204);
    create(&service, &inner).await;
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::Full);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_not_asked_where_there_is_no_room() {
    let store = MemoryStore::new();
    let inner = Inner::issuing(&["theirs"]);
    let one = NonZeroU64::new(1).unwrap();
    let service = over(&store).with_max_sessions(one).layer(inner.clone());
    plant(
        &store,
        "first",
        owner(None),
        mcp_session_layer::Issuer::Inner,
    )
    .await;
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::Full);
    assert!(inner.calls().is_empty());
    assert!(!is_live(&store, "theirs").await);
}

#[tokio::test(start_paused = true)]
async fn one_principals_sessions_do_not_take_anothers_room() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let service = over(&store)
        .with_principal(user_header)
        .with_max_sessions_per_principal(NonZeroU64::new(1).unwrap())
        .layer(inner.clone());
    let by = |user| as_user(initialize(), user);
    assert_eq!(send(&service, by("alice")).await.status, 200);
    send(&service, by("alice"))
        .await
        .assert_unavailable(RejectionKind::Full);
    assert_eq!(send(&service, by("bob")).await.status, 200);
    for _ in 0..3 {
        create(&service, &inner).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_untouched_makes_room() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let service = over(&store)
        .with_max_sessions(NonZeroU64::new(1).unwrap())
        .layer(inner.clone());
    let first = create(&service, &inner).await;
    assert_eq!(send(&service, post(&first)).await.status, 200);
    send(&service, initialize())
        .await
        .assert_unavailable(RejectionKind::Full);
    sleep(HOUR - SECOND).await;
    let second = create(&service, &inner).await;
    assert_eq!(send(&service, post(&first)).await.status, 404);
    assert_eq!(send(&service, post(&second)).await.status, 200);
}
