//! The handle: count, list, end, and hear of it.

use std::{collections::BTreeSet, num::NonZeroU64, time::Duration};

use mcp_session_layer::{
    McpSessionLayer, Principal, RejectionKind, SessionEvent, SessionEvents, Sessions,
    store::EndReason,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    inner::scripted,
    node::Node,
    reading::ends_within,
    support::{
        answers::{id_of, kind_of},
        requests::{as_user, delete, initialize, post},
        sessions::{owner, reference},
        store::{AWAY, Fault, TestStore},
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

fn alice() -> Principal {
    Principal::new("alice")
}

#[tokio::test(start_paused = true)]
async fn counts_and_lists_all_or_an_owner_s_by_pages_without_ids() {
    let node = Node::new(&TestStore::default());
    let sessions = node.layer.sessions();
    let mut ids = Vec::new();
    for nth in 0..25 {
        ids.push(match nth % 5 {
            0 => node.initialize_as("alice").await,
            _ => node.initialize().await,
        });
    }
    assert_eq!(sessions.count().await.unwrap(), 25);
    assert_eq!(sessions.count_of(Some(&alice())).await.unwrap(), 5);
    assert_eq!(sessions.count_of(None).await.unwrap(), 20);

    let mut listed = Vec::new();
    while listed.len() < 25 {
        let page = sessions.list(listed.last(), 10).await.unwrap();
        assert!(page.len() <= 10 && !page.is_empty());
        let text = format!("{page:?}");
        assert!(!ids.iter().any(|id| text.contains(id.as_str())));
        listed.extend(page.iter().map(|listed| listed.reference));
    }
    assert!(sessions.list(listed.last(), 10).await.unwrap().is_empty());
    let listed: BTreeSet<_> = listed.into_iter().collect();
    assert_eq!(listed, ids.iter().map(|id| reference(id)).collect());

    let own = sessions.list_of(Some(&alice()), None, 10).await.unwrap();
    assert_eq!(own.len(), 5);
    assert!(
        own.iter()
            .all(|listed| listed.record.owner == owner(Some("alice")))
    );
}

#[tokio::test(start_paused = true)]
async fn ends_one_an_owner_s_or_all() {
    let node = Node::new(&TestStore::default());
    let sessions = node.layer.sessions();
    let (one, other) = (node.initialize().await, node.initialize().await);
    let (hers, bobs) = (
        node.initialize_as("alice").await,
        node.initialize_as("bob").await,
    );

    assert!(sessions.end(&reference(&one)).await.unwrap());
    assert!(!sessions.end(&reference(&one)).await.unwrap());
    assert_eq!(node.post(&one).await, 404);
    assert_eq!(node.post(&other).await, 200);

    assert_eq!(sessions.end_of(Some(&alice())).await.unwrap(), 1);
    assert_eq!(node.send(as_user(post(&hers), "alice")).await.status(), 404);
    assert_eq!(node.send(as_user(post(&bobs), "bob")).await.status(), 200);

    assert_eq!(sessions.end_all().await.unwrap(), 2);
    assert_eq!(sessions.count().await.unwrap(), 0);
    sleep(SECOND).await;
    assert!(
        node.inner.sessions.lock().is_empty(),
        "the inner service was told"
    );
    assert_eq!(node.inner.deletes.lock().len(), 4, "once of each");
    node.initialize_as("alice").await;
}

#[tokio::test(start_paused = true)]
async fn another_scope_in_the_same_store_is_left_alone() {
    let store = TestStore::default();
    let scoped = |name: &'static str| {
        Node::with(&store, |layer| {
            layer.with_scope(mcp_session_layer::Scope::new(name))
        })
    };
    let (a, b) = (scoped("a"), scoped("b"));
    let (in_a, in_b) = (a.initialize().await, b.initialize().await);
    assert_eq!(a.layer.sessions().count().await.unwrap(), 1);
    assert!(!a.layer.sessions().end(&reference(&in_b)).await.unwrap());
    assert_eq!(a.layer.sessions().end_all().await.unwrap(), 1);
    assert_eq!(a.post(&in_a).await, 404);
    assert_eq!(b.post(&in_b).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_session_begun_before_its_owner_s_sessions_end_is_refused() {
    for end in ["owner", "all"] {
        let store = TestStore::default();
        let node = Node::new(&store);
        let sessions = node.layer.sessions();
        node.initialize_as("alice").await;
        let mut call = Box::pin(node.send(scripted(as_user(initialize(), "alice"), "wait")));
        set_off(&mut call).await;
        node.inner.until_waiting(1).await;
        sleep(SECOND).await;
        let ended = match end {
            "owner" => sessions.end_of(Some(&alice())).await,
            _ => sessions.end_all().await,
        };
        assert_eq!(ended.unwrap(), 1);
        sleep(SECOND).await;
        node.inner.gate.add_permits(1);
        let refused = call.await;
        assert_eq!(refused.status(), 503);
        assert_eq!(kind_of(&refused), Some(RejectionKind::Revoked));
        assert_eq!(id_of(&refused), None);
        sleep(SECOND).await;
        assert_eq!(sessions.count().await.unwrap(), 0);
        assert!(node.inner.sessions.lock().is_empty());
        node.initialize_as("alice").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_session_claimed_elsewhere_is_no_longer_anonymous() {
    for deaf in [false, true] {
        let store = if deaf {
            TestStore::default().without_feed()
        } else {
            TestStore::default()
        };
        let node = || Node::with(&store, McpSessionLayer::with_claim_on_login);
        let (here, there) = (node(), node());
        let (claimed, other) = (here.initialize().await, here.initialize().await);
        here.post(&claimed).await;
        let stream = here.open(&other).await;
        there.send(as_user(post(&claimed), "alice")).await;

        assert_eq!(here.layer.sessions().end_of(None).await.unwrap(), 1);
        ends_within(SECOND, stream).await;
        assert_eq!(
            here.send(as_user(post(&claimed), "alice")).await.status(),
            200
        );
        assert_eq!(here.inner.deleted(), [other]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_on_one_node_is_an_end_on_all() {
    let store = TestStore::default();
    let (here, there) = (Node::new(&store), Node::new(&store));
    let id = here.initialize().await;
    let stream = there.open(&id).await;
    assert_eq!(here.layer.sessions().end_all().await.unwrap(), 1);
    ends_within(SECOND, stream).await;
    sleep(SECOND).await;
    for node in [here, there] {
        assert_eq!(node.post(&id).await, 404);
        assert_eq!(
            node.inner.deleted(),
            std::slice::from_ref(&id),
            "told once each"
        );
    }
}

struct Heard(SessionEvents);

impl Heard {
    fn on(sessions: &Sessions) -> Self {
        Self(sessions.subscribe())
    }

    async fn all(&mut self) -> Vec<SessionEvent> {
        let mut all = Vec::new();
        while let Ok(event) = timeout(SECOND, self.0.next()).await {
            all.push(event.expect("the layer is here"));
        }
        all
    }

    /// The one end that was heard, among new sessions.
    async fn end(&mut self) -> (mcp_session_layer::SessionRef, EndReason) {
        let ends: Vec<_> = self
            .all()
            .await
            .into_iter()
            .filter_map(|event| match event {
                SessionEvent::Ended { reference, reason } => Some((reference, reason)),
                _ => None,
            })
            .collect();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0]
    }
}

#[tokio::test(start_paused = true)]
async fn new_sessions_and_ends_are_heard_once_with_their_reasons() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| {
        layer
            .with_idle_timeout(10 * MINUTE)
            .with_max_lifetime(HOUR)
            .with_max_sessions(NonZeroU64::MIN)
    });
    let sessions = node.layer.sessions();
    let mut heard = Heard::on(&sessions);

    let id = node.initialize_as("alice").await;
    let created = SessionEvent::Created {
        reference: reference(&id),
        owner: owner(Some("alice")),
    };
    assert_eq!(heard.all().await, [created]);
    assert_eq!(node.send(as_user(delete(&id), "alice")).await.status(), 204);
    assert_eq!(heard.end().await, (reference(&id), EndReason::Deleted));

    let id = node.initialize().await;
    sessions.end(&reference(&id)).await.unwrap();
    assert_eq!(heard.end().await, (reference(&id), EndReason::Revoked));

    let id = node.initialize().await;
    sessions.end_of(None).await.unwrap();
    assert_eq!(heard.end().await, (reference(&id), EndReason::Revoked));

    let id = node.initialize().await;
    node.post(&id).await;
    sleep(11 * MINUTE).await;
    assert_eq!(heard.end().await, (reference(&id), EndReason::Idle));

    let id = node.initialize().await;
    let stream = node.open(&id).await;
    sleep(HOUR).await;
    assert_eq!(heard.end().await, (reference(&id), EndReason::Lifetime));
    drop(stream);

    let id = node.initialize().await;
    sleep(MINUTE).await;
    let next = node.initialize().await;
    assert_eq!(heard.end().await, (reference(&id), EndReason::Evicted));

    *node.inner.unknown.lock() = Some(404);
    node.inner.sessions.lock().clear();
    assert_eq!(node.post(&next).await, 404);
    assert_eq!(heard.end().await, (reference(&next), EndReason::InnerGone));

    drop((node, sessions));
    sleep(HOUR).await;
    assert_eq!(heard.0.next().await, None, "the layer is gone");
}

#[tokio::test(start_paused = true)]
async fn an_end_by_the_handle_is_heard_of_a_session_never_served_here() {
    let store = TestStore::default();
    let (here, there) = (Node::new(&store), Node::new(&store));
    let id = there.initialize().await;
    here.initialize().await;
    let sessions = here.layer.sessions();
    let mut heard = Heard::on(&sessions);
    sessions.end(&reference(&id)).await.unwrap();
    assert_eq!(heard.end().await, (reference(&id), EndReason::Revoked));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_announced_once_although_a_delete_takes_long() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let mut heard = Heard::on(&node.layer.sessions());
    let mut call = Box::pin(node.send(scripted(delete(&id), "wait")));
    set_off(&mut call).await;
    let sessions = node.layer.sessions();
    assert!(sessions.end(&reference(&id)).await.unwrap());
    assert_eq!(heard.end().await.1, EndReason::Revoked);
    // Longer than any look-up.
    sleep(2 * MINUTE).await;
    node.inner.answers.lock().push(204);
    node.inner.gate.add_permits(1);
    assert_eq!(call.await.status(), 404);
    assert_eq!(heard.all().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_listen_holds_nothing_up() {
    const SESSIONS: u64 = 3_000;
    let node = Node::new(&TestStore::default());
    let mut deaf = node.layer.sessions().subscribe();
    for _ in 0..SESSIONS {
        node.initialize().await;
    }
    let Some(SessionEvent::Missed(missed)) = deaf.next().await else {
        panic!("says that it missed some");
    };
    let mut heard = 0;
    while timeout(Duration::from_millis(1), deaf.next()).await.is_ok() {
        heard += 1;
    }
    assert_eq!(missed + heard, SESSIONS);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_ready_while_its_store_answers_and_until_it_drains() {
    let store = TestStore::default();
    let sessions = Node::new(&store).layer.sessions();
    assert!(sessions.ready().await);
    for fault in [AWAY, Fault::Hangs] {
        store.disturb(&["load"], fault);
        let began = Instant::now();
        assert!(!sessions.ready().await);
        assert!(began.elapsed() <= 3 * SECOND, "a request's time at most");
        store.recover();
    }
    assert!(sessions.ready().await);
    sessions.drain();
    assert!(!sessions.ready().await);
    assert_eq!(
        sessions.count().await.unwrap(),
        0,
        "nothing was left behind"
    );
}
