//! The inner service forgets sessions that live, or only seems to: its client is told, and nobody else's word ends one.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures_util::future::{join, join_all};
use mcp_session_layer::{RejectionKind, SessionEvent, store::EndReason};
use tokio::time::{Instant, sleep};

use crate::{
    forgetful::{Gate, Way, call, from},
    reading::{read_to_end, stays_silent},
    support::{
        answers::{NOT_FOUND, id_of, kind_of},
        layer::user_header,
        requests::{as_user, delete, get, initialize, on},
        sessions::{idle_left, reference},
        store::TestStore,
        time::{HOUR, MINUTE, SECOND, settled},
    },
};

pub(crate) const OWNER: &str = "Bearer owner";
pub(crate) const STRANGER: &str = "Bearer stranger";

#[tokio::test(start_paused = true)]
async fn its_client_is_told_404_and_it_ends_everywhere() {
    for gone in [400, 404] {
        for method in ["POST", "GET", "PUT"] {
            for auth in ["", OWNER] {
                let store = TestStore::default();
                let gate = Gate::new(&store, Way::Plain, gone);
                let mut events = gate.layer.sessions().subscribe();
                let id = gate.open(auth).await;
                let stream = gate.send(from(auth, get(&id))).await.into_body();
                gate.server.forget();
                let answer = gate.send(from(auth, on(&id, method))).await;
                assert_eq!(answer.status(), 404, "{gone} {method}");
                assert_eq!(kind_of(&answer), Some(RejectionKind::InnerGone));
                let (_, body) = read_to_end(answer.into_body()).await;
                assert_eq!(body, NOT_FOUND);
                assert_eq!(gate.server.take_asked(), 1);
                assert!(store.peek(&id).await.is_none());
                read_to_end(stream).await;
                assert!(matches!(
                    events.next().await,
                    Some(SessionEvent::Created { .. })
                ));
                let ended = SessionEvent::Ended {
                    reference: reference(&id),
                    reason: EndReason::InnerGone,
                };
                assert_eq!(events.next().await, Some(ended));
                settled().await;
                assert_eq!(*gate.server.deletes.lock(), [id], "told like any end");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_saw_no_request_yet_ends_too() {
    let store = TestStore::default();
    let gate = Gate::new(&store, Way::Plain, 400);
    let id = id_of(&gate.send(initialize()).await).unwrap();
    gate.server.forget();
    assert_eq!(gate.status(call(&id, "good")).await, 404);
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_no_death_however_often_it_comes() {
    for way in [
        Way::Plain,
        Way::NoPing(200),
        Way::NoPing(400),
        Way::NoPing(404),
        Way::InitializedFirst,
        Way::WantsAuthorization,
        Way::GetFails,
    ] {
        let store = TestStore::default();
        let gate = Gate::new(&store, way, 404);
        let id = gate.open(OWNER).await;
        for _ in 0..3 {
            for (method, status) in [("bad", 400), ("nothing", 404)] {
                let answer = gate.send(from(OWNER, call(&id, method))).await;
                assert_eq!(answer.status(), status, "{way:?}");
                assert_eq!(kind_of(&answer), None, "{way:?}: as it came");
                sleep(3 * SECOND).await;
            }
        }
        assert_eq!(gate.server.take_asked(), 6, "{way:?}");
        assert_eq!(gate.status(from(OWNER, call(&id, "good"))).await, 200);
        assert!(store.peek(&id).await.is_some());

        // The same server, when it is restarted.
        gate.server.forget();
        let method = if way == Way::GetFails { "GET" } else { "POST" };
        let answer = gate.send(from(OWNER, on(&id, method))).await;
        assert_eq!(kind_of(&answer), Some(RejectionKind::InnerGone), "{way:?}");
        assert!(store.peek(&id).await.is_none(), "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_wants_initialized_first_is_asked_after_it() {
    let store = TestStore::default();
    let gate = Gate::new(&store, Way::InitializedFirst, 404);
    let id = id_of(&gate.send(initialize()).await).unwrap();
    for _ in 0..3 {
        assert_eq!(gate.status(call(&id, "too early")).await, 400);
        sleep(3 * SECOND).await;
    }
    assert!(store.peek(&id).await.is_some());
    assert_eq!(
        gate.status(call(&id, "notifications/initialized")).await,
        202
    );
    assert_eq!(gate.status(call(&id, "bad")).await, 400);
    gate.server.forget();
    sleep(3 * SECOND).await;
    assert_eq!(gate.status(call(&id, "good")).await, 404);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_ends_nothing() {
    for stranger in [STRANGER, ""] {
        let store = TestStore::default();
        let gate = Gate::new(&store, Way::Plain, 404);
        let id = gate.open(OWNER).await;
        let mut stream = gate.send(from(OWNER, get(&id))).await.into_body();
        for method in ["DELETE", "POST", "GET"] {
            let answer = gate.send(from(stranger, on(&id, method))).await;
            assert_eq!(answer.status(), 404, "{method}");
            assert_eq!(kind_of(&answer), Some(RejectionKind::InnerGone));
            // What was found for a stranger is nothing to the owner.
            let bad = gate.send(from(OWNER, call(&id, "bad"))).await;
            assert_eq!(
                (bad.status().as_u16(), kind_of(&bad)),
                (400, None),
                "{method}"
            );
            assert!(stays_silent(&mut stream, 3 * SECOND).await);
        }
        assert_eq!(gate.status(from(OWNER, call(&id, "good"))).await, 200);
        assert!(store.peek(&id).await.is_some());
        assert_eq!(gate.status(from(OWNER, delete(&id))).await, 204);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_s_word_is_worth_nothing_to_the_layer_s_principals_either() {
    let store = TestStore::default();
    let gate = Gate::with(&store, Way::Plain, 404, |layer| {
        layer.with_principal(user_header)
    });
    let created = gate.send(as_user(initialize(), "alice")).await;
    let id = id_of(&created).unwrap();
    // To others it does not exist; whoever the layer knows is believed, with whatever token.
    assert_eq!(gate.status(as_user(call(&id, "good"), "bob")).await, 404);
    gate.server.forget();
    let renewed = from("Bearer renewed", as_user(call(&id, "good"), "alice"));
    assert_eq!(gate.status(renewed).await, 404);
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_renewed_costs_a_late_end() {
    let store = TestStore::default();
    let gate = Gate::new(&store, Way::Plain, 404);
    let id = gate.open(OWNER).await;
    gate.server.forget();
    assert_eq!(
        gate.status(from("Bearer renewed", call(&id, "good"))).await,
        404
    );
    assert!(store.peek(&id).await.is_some());
    // It is not extended any more, however often it is used.
    for _ in 0..59 {
        sleep(MINUTE).await;
        assert_eq!(
            gate.status(from("Bearer renewed", call(&id, "good"))).await,
            404
        );
    }
    sleep(2 * MINUTE).await;
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_misrouted_request_ends_nothing() {
    for auth in ["", OWNER] {
        let store = TestStore::default().remote();
        let here = Gate::new(&store, Way::Plain, 404);
        let there = Gate::new(&store, Way::Plain, 404);
        let id = here.open(auth).await;
        let mut stream = here.send(from(auth, get(&id))).await.into_body();
        for method in ["POST", "GET", "DELETE"] {
            let answer = there.send(from(auth, on(&id, method))).await;
            assert_eq!(answer.status(), 404, "{method}");
            assert!(stays_silent(&mut stream, SECOND).await, "{method}");
            assert_eq!(here.status(from(auth, call(&id, "good"))).await, 200);
        }
        // There it is not extended, here it is: by its stream, too.
        let left = idle_left(&store.memory, &id).await;
        sleep(10 * SECOND).await;
        assert_eq!(there.status(from(auth, call(&id, "good"))).await, 404);
        assert_eq!(
            idle_left(&store.memory, &id).await,
            left.map(|left| left - 10 * SECOND)
        );
        sleep(5 * HOUR).await;
        assert!(stays_silent(&mut stream, SECOND).await);
        assert_eq!(here.status(from(auth, call(&id, "good"))).await, 200);
        // It may come back there, as where it can be restored.
        let owner = (!auth.is_empty()).then(|| auth.to_owned());
        there
            .server
            .sessions
            .lock()
            .insert(id.clone(), (owner, true));
        assert_eq!(there.status(from(auth, call(&id, "good"))).await, 200);
        drop(stream);
        sleep(50 * MINUTE).await;
        assert_eq!(there.status(from(auth, call(&id, "good"))).await, 200);
        sleep(50 * MINUTE).await;
        assert_eq!(
            there.status(from(auth, call(&id, "good"))).await,
            200,
            "extended again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_delete_and_a_call_at_once_the_delete_ends_it() {
    let store = TestStore::default();
    let gate = Gate::new(&store, Way::Plain, 404);
    let id = gate.open("").await;
    *gate.server.takes.lock() = SECOND;
    let late = async {
        // The inner service has ended it, and has not said so yet.
        sleep(SECOND / 10).await;
        gate.send(call(&id, "good")).await
    };
    let (ended, late) = join(gate.send(delete(&id)), late).await;
    assert_eq!(ended.status(), 204);
    assert_eq!(late.status(), 404);
    assert!(store.peek(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_inner_service_ends_nothing() {
    for way in [Way::Broken, Way::Hangs] {
        let store = TestStore::default();
        let gate = Gate::new(&store, Way::Plain, 404);
        let id = gate.open("").await;
        let broken = Gate::with(&store, Way::Plain, 500, |layer| layer);
        *gate.server.way.lock() = way;
        if way == Way::Broken {
            for method in ["POST", "GET", "DELETE"] {
                let answer = gate.send(on(&id, method)).await;
                assert_eq!((answer.status().as_u16(), kind_of(&answer)), (500, None));
                sleep(2 * SECOND).await;
            }
            assert_eq!(gate.server.take_asked(), 3);
        }
        // A service that fails, and then says nothing to the question.
        *broken.server.way.lock() = Way::Plain;
        let hanging = async {
            sleep(SECOND).await;
            *broken.server.way.lock() = Way::Hangs;
        };
        *broken.server.takes.lock() = HOUR;
        let start = Instant::now();
        let (answer, ()) = join(broken.send(call(&id, "good")), hanging).await;
        assert_eq!((answer.status().as_u16(), kind_of(&answer)), (500, None));
        assert_eq!(start.elapsed(), 3 * SECOND, "the question has a limit");
        *gate.server.way.lock() = Way::Plain;
        assert_eq!(gate.status(call(&id, "good")).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_bad_requests_asks_a_few_at_a_time() {
    const SESSIONS: usize = 200;
    let store = TestStore::default();
    let gate = Gate::new(&store, Way::Plain, 404);
    let mut ids = Vec::new();
    for _ in 0..SESSIONS {
        ids.push(gate.open("").await);
    }
    *gate.server.takes.lock() = Duration::from_millis(100);
    // Ten on each: one is asked about, the others wait for what it finds.
    let all = (0..10 * SESSIONS).map(|nth| gate.send(call(&ids[nth % SESSIONS], "bad")));
    for answer in join_all(all).await {
        assert_eq!((answer.status().as_u16(), kind_of(&answer)), (400, None));
    }
    assert_eq!(gate.server.take_asked(), SESSIONS);
    assert!(gate.server.most_asking.load(SeqCst) <= 16);
    // Nor does anybody wait for ever whose turn does not come.
    *gate.server.takes.lock() = HOUR;
    sleep(3 * SECOND).await;
    let start = Instant::now();
    let all =
        (0..SESSIONS).map(|nth| gate.send(from(&format!("Bearer {nth}"), call(&ids[0], "bad"))));
    join_all(all).await;
    assert!(start.elapsed() <= 5 * SECOND);
}
