//! Races, on several threads, over a store that yields before and after its effect.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use mcp_session_layer::{McpSessionLayer, Principal};
use tokio::{join, time::timeout};

use crate::{
    inner::scripted,
    node::Node,
    reading::read_to_end,
    support::{
        requests::{as_user, delete, get, initialize, post},
        store::TestStore,
        time::{SECOND, eventually},
    },
};

/// How often each race is run: some ten seconds each without optimisation on a busy machine.
const ROUNDS: usize = 2_000;

const ENDS: Duration = Duration::from_secs(5);

/// What became of sessions that were ended while they were being created.
#[derive(Debug, Default)]
struct Outcomes {
    refused: usize,
    created_and_ended: usize,
}

impl Outcomes {
    /// Refused or created, and then its stream ends.
    async fn add(&mut self, round: usize, created: Response<Body>) {
        match created.status().as_u16() {
            200 => self.created_and_ended += 1,
            503 => self.refused += 1,
            status => panic!("{round}: {status}"),
        }
        let stream = timeout(ENDS, read_to_end(created.into_body())).await;
        assert!(
            stream.is_ok(),
            "{round}: the stream of a session that was ended"
        );
    }
}

macro_rules! spawned {
    ($node:expr, $request:expr) => {{
        let (node, request) = ($node.clone(), $request);
        tokio::spawn(async move { node.send(request).await })
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_delete_while_others_touch_and_open_streams() {
    let mut opened = 0;
    let store = TestStore::default().yielding();
    let (here, there) = (Node::new(&store), Node::new(&store));
    for round in 0..ROUNDS {
        let id = here.initialize().await;
        let (stream, far, call, end) = join!(
            spawned!(here, get(&id)),
            spawned!(there, get(&id)),
            spawned!(here, post(&id)),
            spawned!(here, delete(&id)),
        );
        assert_eq!(end.unwrap().status(), 204, "{round}");
        assert!([200, 404].contains(&call.unwrap().status().as_u16()));
        for stream in [stream, far] {
            let stream = stream.unwrap();
            match stream.status().as_u16() {
                200 => opened += 1,
                status => assert_eq!(status, 404),
            }
            let ended = timeout(ENDS, read_to_end(stream.into_body())).await;
            assert!(ended.is_ok(), "{round}: a stream outlives its session");
        }
        assert_eq!(here.post(&id).await, 404, "{round}: it came back");
        assert!(store.peek(&id).await.is_none());
    }
    println!("{opened} of {} streams were opened in time", 2 * ROUNDS);
    eventually("no body is left", || {
        here.inner.bodies() + there.inner.bodies() == 0
    })
    .await;
    eventually("nor a session", || here.inner.sessions.lock().is_empty()).await;
    let mut told = here.inner.deleted();
    told.sort_unstable();
    told.dedup();
    assert_eq!(
        told.len(),
        here.inner.deletes.lock().len(),
        "told of each end once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_of_an_owner_s_sessions_while_one_is_being_created() {
    let mut outcomes = Outcomes::default();
    let store = TestStore::default().yielding();
    let unlimited = mcp_session_layer::CreationRates::unlimited();
    let node = Node::with(&store, |layer| layer.with_creation_rates(unlimited));
    let sessions = node.layer.sessions();
    let alice = Principal::new("alice");
    for round in 0..ROUNDS {
        let call = spawned!(
            node,
            scripted(as_user(initialize(), "alice"), "wait, stream")
        );
        node.inner.until_waiting(round + 1).await;
        // It has begun, so it must not survive this.
        let end = {
            let (sessions, alice) = (sessions.clone(), alice.clone());
            tokio::spawn(async move { sessions.end_of(Some(&alice)).await })
        };
        for _ in 0..round % 300 {
            std::hint::spin_loop();
        }
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        node.inner.gate.add_permits(1);
        let (call, end) = join!(call, end);
        end.unwrap().unwrap();
        let created = call.unwrap();
        outcomes.add(round, created).await;
        if sessions.count().await.unwrap() > 0 {
            // Refused, and being deleted in the background.
            tokio::time::sleep(SECOND / 10).await;
            assert_eq!(sessions.count().await.unwrap(), 0, "{round}");
        }
    }
    println!("{outcomes:?}");
    eventually("no body is left", || node.inner.bodies() == 0).await;
    eventually("nor a session", || node.inner.sessions.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_on_another_node_while_a_session_is_being_created() {
    let mut outcomes = Outcomes::default();
    let store = TestStore::default().yielding();
    let (here, there) = (Node::new(&store), Node::new(&store));
    let sessions = there.layer.sessions();
    for round in 0..ROUNDS {
        let call = spawned!(here, scripted(initialize(), "stream"));
        // It may come too early. In the end it comes after the session.
        while !call.is_finished() {
            sessions.end_all().await.unwrap();
            tokio::task::yield_now().await;
        }
        sessions.end_all().await.unwrap();
        let created = call.await.unwrap();
        outcomes.add(round, created).await;
    }
    println!("{outcomes:?}");
    eventually("no body is left", || here.inner.bodies() == 0).await;
    eventually("nor a session", || here.inner.sessions.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_while_an_anonymous_caller_opens_a_stream() {
    let mut opened = 0;
    let store = TestStore::default().yielding();
    let node = Node::with(&store, McpSessionLayer::with_claim_on_login);
    for round in 0..ROUNDS {
        let id = node.initialize().await;
        let (stream, call, login) = join!(
            spawned!(node, get(&id)),
            spawned!(node, post(&id)),
            spawned!(node, as_user(post(&id), "alice")),
        );
        assert_eq!(login.unwrap().status(), 200, "{round}");
        assert!([200, 404].contains(&call.unwrap().status().as_u16()));
        let stream = stream.unwrap();
        opened += usize::from(stream.status() == 200);
        let ended = timeout(ENDS, read_to_end(stream.into_body())).await;
        assert!(
            ended.is_ok(),
            "{round}: an anonymous stream on alice's session"
        );
        let own = node.send(as_user(get(&id), "alice")).await;
        assert_eq!(own.status(), 200, "{round}: alice has it for good");
        assert_eq!(node.post(&id).await, 404);
        assert_eq!(
            node.inner.bodies(),
            1,
            "{round}: no other end ended her stream"
        );
        drop(own);
        node.send(as_user(delete(&id), "alice")).await;
    }
    println!("{opened} of {ROUNDS} streams were opened in time");
}
