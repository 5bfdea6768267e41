//! Creations are limited before they cost anything.

use std::{num::NonZero, sync::atomic::Ordering::SeqCst};

use http::{Request, Response};
use mcp_session_layer::{CreationRate, CreationRates, RejectionKind};
use tokio::time::sleep;

use axum::body::Body;

use crate::{
    inner::scripted,
    node::Node,
    support::{
        answers::{id_of, kind_of},
        requests::{as_user, initialize, post},
        store::TestStore,
        time::{MINUTE, SECOND, set_off},
    },
};

fn rate(per_second: u32, burst: u32) -> CreationRate {
    let number = |number| NonZero::new(number).unwrap();
    CreationRate::per_second(number(per_second)).with_burst(number(burst))
}

fn limited(store: &TestStore, sessions: u64) -> Node {
    Node::with(store, |layer| {
        layer
            .with_max_sessions(NonZero::new(sessions).unwrap())
            .with_reserve_for_principals(0)
    })
}

/// A creation that waits in the inner service.
fn waiting() -> Request<Body> {
    scripted(initialize(), "wait")
}

fn retry_after(response: &Response<Body>) -> u64 {
    let seconds = response.headers()["retry-after"].to_str().unwrap();
    seconds.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn creations_under_way_count() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = limited(&store, 3);
        node.initialize().await;
        let mut under_way = [node.send(waiting()), node.send(waiting())].map(Box::pin);
        for creation in &mut under_way {
            set_off(creation).await;
        }
        node.inner.until_waiting(2).await;
        let refused = node.send(initialize()).await;
        assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
        assert_eq!(
            node.inner.sessions.lock().len(),
            1,
            "the inner service was not asked"
        );
        node.inner.gate.add_permits(2);
        for creation in under_way {
            assert_eq!(creation.await.status(), 200);
        }
        assert_eq!(node.layer.sessions().count().await.unwrap(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_node_took_meanwhile_is_refused_and_ended_in_the_inner_service() {
    let store = TestStore::default().remote();
    let (here, there) = (limited(&store, 1), limited(&store, 1));
    let mut creation = Box::pin(here.send(waiting()));
    set_off(&mut creation).await;
    here.inner.until_waiting(1).await;
    there.initialize().await;
    here.inner.gate.add_permits(1);
    assert_eq!(kind_of(&creation.await), Some(RejectionKind::Full));
    sleep(SECOND).await;
    assert_eq!(here.inner.deleted().len(), 1);
    assert!(here.inner.sessions.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_principals_creations_under_way_count() {
    let node = Node::with(&TestStore::default(), |layer| {
        layer.with_max_sessions_per_principal(NonZero::<u64>::MIN)
    });
    let mut under_way = Box::pin(node.send(as_user(waiting(), "alice")));
    set_off(&mut under_way).await;
    node.inner.until_waiting(1).await;
    let refused = node.send(as_user(initialize(), "alice")).await;
    assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
    node.initialize_as("bob").await;
    node.inner.gate.add_permits(1);
    assert_eq!(under_way.await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_when_the_inner_service_fails() {
    let node = limited(&TestStore::default(), 1);
    for _ in 0..3 {
        let failed = node.send(scripted(initialize(), "refuse")).await;
        assert_eq!(failed.status(), 404);
    }
    node.initialize().await;
    sleep(SECOND).await;
    assert_eq!(node.inner.sessions.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_before_the_inner_service_is_called() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = limited(&store, 1);
        let id = node.initialize().await;
        let _stream = node.open(&id).await;
        for _ in 0..100 {
            let refused = node.send(waiting()).await;
            assert_eq!(refused.status(), 503);
            sleep(7 * SECOND).await;
        }
        assert_eq!(node.inner.waiting.load(SeqCst), 0, "always");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_says_when_a_session_may_go() {
    let node = limited(&TestStore::default(), 1);
    node.initialize().await;
    assert_eq!(retry_after(&node.send(initialize()).await), 30);
    sleep(20 * SECOND).await;
    assert_eq!(retry_after(&node.send(initialize()).await), 10);
    sleep(10 * SECOND).await;
    let id = node.initialize().await;
    let _stream = node.open(&id).await;
    let wait = retry_after(&node.send(initialize()).await);
    assert_eq!(wait, 60, "nobody knows, and it is bounded");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_the_limit_is_for_principals_only() {
    let node = Node::with(&TestStore::default(), |layer| {
        layer
            .with_max_sessions(NonZero::new(4).unwrap())
            .with_reserve_for_principals(2)
    });
    for _ in 0..2 {
        node.initialize().await;
    }
    let refused = node.send(initialize()).await;
    assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
    for user in ["alice", "bob"] {
        node.initialize_as(user).await;
    }
    let refused = node.send(as_user(initialize(), "carol")).await;
    assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
}

#[tokio::test(start_paused = true)]
async fn each_principal_and_all_anonymous_callers_have_a_rate() {
    let rates = CreationRates::unlimited()
        .anonymous(rate(1, 3))
        .per_principal(rate(1, 2));
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_creation_rates(rates));
    for (user, burst) in [(None, 3), (Some("alice"), 2), (Some("bob"), 2)] {
        let request = || match user {
            Some(user) => as_user(initialize(), user),
            None => initialize(),
        };
        for _ in 0..burst {
            assert_eq!(node.send(request()).await.status(), 200);
        }
        store.take_calls();
        let inner = node.inner.sessions.lock().len();
        let refused = node.send(request()).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(kind_of(&refused), Some(RejectionKind::TooManyCreations));
        assert_eq!((retry_after(&refused), id_of(&refused)), (1, None));
        assert_eq!(store.take_calls(), [] as [&str; 0], "it costs nothing");
        assert_eq!(node.inner.sessions.lock().len(), inner);
    }
    sleep(SECOND).await;
    assert_eq!(node.send(initialize()).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_address_does_not_use_up_the_rate_of_all() {
    let rates = CreationRates::unlimited()
        .anonymous(rate(1, 4))
        .per_address(rate(1, 2), NonZero::<usize>::MIN);
    let node = Node::with(&TestStore::default(), |layer| {
        layer.with_creation_rates(rates)
    });
    let from = |address: &str| {
        let mut request = initialize();
        let forwarded = format!("6.6.6.6, {address}").parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", forwarded);
        request
    };
    for (address, statuses) in [
        ("10.0.0.1", [200, 200, 429, 429]),
        ("10.0.0.2", [200, 200, 429, 429]),
    ] {
        for status in statuses {
            assert_eq!(node.send(from(address)).await.status(), status, "{address}");
        }
    }
}

/// Anonymous creations without end, at the default limits, while ten users work: they see no error.
async fn flood(creations: usize) {
    let store = TestStore::default();
    let node = Node::new(&store);
    let mut users = Vec::new();
    for user in 0..10 {
        let user = format!("user {user}");
        users.push((node.initialize_as(&user).await, user));
    }
    let (mut created, mut refused) = (0, 0);
    for nth in 0..creations {
        match node.send(initialize()).await.status().as_u16() {
            200 => created += 1,
            429 | 503 => refused += 1,
            status => panic!("{status}"),
        }
        if nth % 100 == 0 {
            let (id, user) = &mut users[nth / 100 % 10];
            assert_eq!(node.send(as_user(post(id), user)).await.status(), 200);
            if nth % 1000 == 0 {
                *id = node.initialize_as(user).await;
            }
        }
        if nth % 1000 == 999 {
            sleep(SECOND / 10).await;
        }
    }
    println!("{created} created, {refused} refused");
    assert!(refused > created, "it is a flood");
    for (id, user) in &users {
        assert_eq!(node.send(as_user(post(id), user)).await.status(), 200);
    }
    sleep(MINUTE).await;
    assert!(node.layer.sessions().count().await.unwrap() < 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_anonymous_creations_is_no_error_for_users() {
    let creations = std::env::var("MCP_FLOOD").map_or(25_000, |number| number.parse().unwrap());
    flood(creations).await;
}
