//! In use is not idle.

use std::time::Duration;

use http_body_util::BodyExt as _;
use mcp_session_layer::{
    SessionEvent,
    store::{EndReason, Found},
};
use tokio::time::sleep;

use crate::{
    inner::scripted,
    node::Node,
    reading::{read_to_end, stays_silent},
    support::{
        answers::id_of,
        requests::{initialize, post},
        store::{AWAY, TestStore, VERBS},
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

fn node(store: &TestStore) -> Node {
    Node::with(store, |layer| layer.with_idle_timeout(MINUTE))
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_keeps_its_session_although_nobody_polls_it() {
    let store = TestStore::default();
    let (here, there) = (node(&store), node(&store));
    let id = here.initialize().await;
    let stream = here.open(&id).await;
    sleep(HOUR).await;
    assert!(store.peek(&id).await.is_some());
    assert_eq!(there.post(&id).await, 200, "on another node too");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn an_answer_being_computed_keeps_its_session() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let (here, there) = (node(&store), node(&store));
        let id = here.initialize().await;
        let mut answer = Box::pin(here.send(scripted(post(&id), "wait")));
        set_off(&mut answer).await;
        sleep(HOUR).await;
        assert_eq!(there.post(&id).await, 200);
        here.inner.gate.add_permits(1);
        assert_eq!(answer.await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_being_sent_keeps_its_session_until_it_is_dropped() {
    let store = TestStore::default();
    let (here, there) = (node(&store), node(&store));
    let id = here.initialize().await;
    let answer = here.send(scripted(post(&id), "unfinished")).await;
    sleep(HOUR).await;
    assert!(store.peek(&id).await.is_some());
    assert_eq!(there.post(&id).await, 200, "on another node too");
    drop(answer);
    sleep(2 * MINUTE).await;
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_briefly_away_ends_nothing() {
    let store = TestStore::default();
    let node = node(&store);
    let id = node.initialize().await;
    let mut stream = node.open(&id).await;
    for _ in 0..10 {
        store.disturb(VERBS, AWAY);
        assert!(stays_silent(&mut stream, MINUTE / 2).await);
        store.recover();
        assert!(stays_silent(&mut stream, MINUTE / 2).await);
    }
    assert_eq!(node.post(&id).await, 200);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_stream_is_gone_the_idle_time_starts() {
    let store = TestStore::default();
    let node = node(&store);
    let id = node.initialize().await;
    let (first, last) = (node.open(&id).await, node.open(&id).await);
    sleep(10 * MINUTE + 7 * SECOND).await;
    drop(first);
    sleep(5 * SECOND).await;
    drop(last);
    sleep(MINUTE - SECOND).await;
    assert!(store.peek(&id).await.is_some());
    sleep(2 * SECOND).await;
    assert!(store.peek(&id).await.is_none());
    assert_eq!(node.post(&id).await, 404);
}

#[tokio::test(start_paused = true)]
async fn after_a_long_answer_the_idle_time_starts() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = node(&store);
        let id = node.initialize().await;
        let mut answer = Box::pin(node.send(scripted(post(&id), "wait")));
        set_off(&mut answer).await;
        // Not a beat: the keeper has not touched it.
        sleep(14 * SECOND).await;
        node.inner.gate.add_permits(1);
        assert_eq!(answer.await.status(), 200);
        sleep(MINUTE - SECOND).await;
        assert!(store.peek(&id).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_although_its_client_does_not_read_is_no_use() {
    let store = TestStore::default();
    let node = node(&store);
    let id = node.initialize().await;
    let mut body = node.open(&id).await;
    node.inner.streams.lock().clear();
    assert!(body.frame().await.is_none());
    sleep(MINUTE + SECOND).await;
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_at_rest_costs_one_call_at_its_end() {
    let store = TestStore::default();
    let node = node(&store);
    let id = node.initialize().await;
    node.post(&id).await;
    store.take_counts();
    sleep(10 * MINUTE).await;
    assert_eq!(store.take_counts(), [("expire", 1)].into());
}

/// An inner service that counts its ids issues the same ones after a restart, at times before anybody has noticed that the
/// time of the session before is up.
#[tokio::test(start_paused = true)]
async fn an_id_that_is_issued_again_is_of_a_new_session() {
    let store = TestStore::default();
    let node = node(&store);
    let mut events = node.layer.sessions().subscribe();
    node.created(scripted(initialize(), "issue=1")).await;
    store.disturb(&["expire"], AWAY);
    sleep(MINUTE + SECOND).await;
    node.created(scripted(initialize(), "issue=1")).await;
    let mut happened = vec![];
    for _ in 0..3 {
        happened.push(match events.next().await.unwrap() {
            SessionEvent::Created { .. } => None,
            SessionEvent::Ended { reason, .. } => Some(reason),
            event => panic!("{event:?}"),
        });
    }
    assert_eq!(happened, [None, Some(EndReason::Idle), None]);

    store.recover();
    store.take_counts();
    assert_eq!(node.post("1").await, 200);
    sleep(10 * MINUTE).await;
    let asked = store.take_counts()["expire"];
    assert!(asked <= 2, "the first is looked at no more: {asked}");
    assert_eq!(node.inner.deleted(), ["1"], "and is not told apart inside");
}

/// Whichever the node hears first: that the time of the one before is up, or that the store has the new one.
#[tokio::test(start_paused = true)]
async fn an_id_that_is_issued_again_as_its_time_is_up_is_live_or_refused() {
    let mut outcomes = [0; 3];
    for step in 0..80 {
        let store = TestStore::default().with_delay(SECOND);
        let node = node(&store);
        node.created(scripted(initialize(), "issue=1")).await;
        sleep(MINUTE - 4 * SECOND + step * SECOND / 10).await;
        let answer = node.send(scripted(initialize(), "issue=1")).await;
        let (status, id) = (answer.status().as_u16(), id_of(&answer));
        read_to_end(answer.into_body()).await;
        sleep(10 * SECOND).await;
        let is_stored = store.peek("1").await.is_some();
        match (status, id) {
            (200, Some(_)) => {
                outcomes[0] += 1;
                assert!(is_stored, "{step}");
                assert_eq!(node.post("1").await, 200, "{step}: it is live");
                sleep(10 * SECOND).await;
                assert_eq!(node.post("1").await, 200, "{step}: and stays so");
            }
            (503, None) => {
                outcomes[1] += 1;
                assert!(!is_stored, "{step}: nobody has its id");
            }
            // The one before was still live.
            (500, None) => outcomes[2] += 1,
            other => panic!("{step}: {other:?}"),
        }
    }
    assert!(outcomes.iter().all(|times| *times > 0), "{outcomes:?}");
}

/// A store that cannot say for certain that a session is over is not believed when a read does not show it. But nothing
/// stays for ever.
#[tokio::test(start_paused = true)]
async fn nothing_is_concluded_from_a_read() {
    let store = TestStore::default().remote().without_expire();
    let node = node(&store);
    let id = node.initialize().await;
    node.post(&id).await;
    store.take_counts();
    sleep(MINUTE + SECOND).await;
    assert_eq!(store.take_counts(), [("load", 1)].into());
    assert!(store.peek(&id).await.is_none());
    assert_eq!(node.inner.deleted(), Vec::<String>::new(), "it only reads");
    sleep(2 * MINUTE).await;
    assert_eq!(store.take_counts(), [("delete", 1), ("load", 1)].into());
    assert_eq!(node.inner.deleted(), [id], "then the end is certain");
}

#[tokio::test(start_paused = true)]
async fn an_unused_session_lives_five_minutes_and_a_used_one_longer() {
    let store = TestStore::default();
    let node = Node::new(&store);
    let (unused, used) = (node.initialize().await, node.initialize().await);
    node.post(&used).await;
    sleep(5 * MINUTE - SECOND).await;
    assert!(store.peek(&unused).await.is_some());
    sleep(SECOND).await;
    assert!(store.peek(&unused).await.is_none());
    assert!(store.peek(&used).await.is_some());
    sleep(SECOND).await;
    assert_eq!(node.inner.deleted(), [unused]);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_its_initialize_is_no_use_of_a_session() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_idle_timeout(10 * MINUTE));
    let answer = node.send(scripted(initialize(), "stream")).await;
    let id = id_of(&answer).unwrap();
    let (time, _) = read_to_end(answer.into_body()).await;
    assert!(time >= 5 * MINUTE && time < 5 * MINUTE + SECOND, "{time:?}");

    let answer = node.send(scripted(initialize(), "stream")).await;
    let other = id_of(&answer).unwrap();
    sleep(4 * MINUTE).await;
    drop(answer);
    sleep(MINUTE).await;
    assert!(store.peek(&id).await.is_none());
    assert!(
        store.peek(&other).await.is_none(),
        "nor is its end a request"
    );
}

#[tokio::test(start_paused = true)]
async fn life_is_not_extended() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| {
        layer
            .with_idle_timeout(MINUTE)
            .with_max_lifetime(10 * MINUTE)
    });
    let id = node.initialize().await;
    let _stream = node.open(&id).await;
    sleep(10 * MINUTE - SECOND).await;
    let Found { life_left, .. } = store.peek(&id).await.unwrap();
    assert_eq!(life_left, Some(SECOND));
    assert_eq!(node.post(&id).await, 200);
    sleep(SECOND).await;
    assert_eq!(node.post(&id).await, 404);
}

#[tokio::test(start_paused = true)]
async fn nothing_keeps_the_layer_when_its_owner_drops_it() {
    let gone = std::sync::Arc::new(());
    let store = TestStore::default();
    let node = {
        let gone = gone.clone();
        Node::with(&store, |layer| {
            layer.with_principal(move |_| {
                let _ = &gone;
                Ok(None)
            })
        })
    };
    let id = node.initialize().await;
    drop(node.open(&id).await);
    drop(node);
    sleep(Duration::from_millis(1)).await;
    // The keeper's next beat at the latest.
    sleep(HOUR).await;
    assert_eq!(std::sync::Arc::strong_count(&gone), 1);
}
