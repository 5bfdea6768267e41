//! Where there is no room for another session, those that seem forgotten go first, unless they are used.

use mcp_session_layer::MemoryStore;
use tokio::time::sleep;

use crate::{
    forgetful::{Gate, Way, call, from},
    forgotten::{OWNER, STRANGER},
    support::{
        answers::id_of,
        layer::user_header,
        requests::{as_user, initialize},
        store::TestStore,
        time::{MINUTE, SECOND},
    },
};

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_what_seems_forgotten_goes_first() {
    for auth in ["", OWNER] {
        let store = MemoryStore::new();
        let one = |layer: mcp_session_layer::McpSessionLayer| {
            layer.with_max_sessions(std::num::NonZeroU64::MIN)
        };
        // The sessions are kept, the process is another one.
        let mut id = Gate::with(&store, Way::Plain, 404, one).open(auth).await;
        for round in 0..7 {
            let gate = Gate::with(&store, Way::Plain, 404, one);
            assert_eq!(gate.status(from(auth, call(&id, "good"))).await, 404);
            let created = gate.send(from(auth, initialize())).await;
            assert_eq!(created.status(), 200, "{round}");
            id = id_of(&created).unwrap();
            assert_eq!(gate.status(from(auth, call(&id, "good"))).await, 200);
            // One that is used goes for nobody.
            assert_eq!(gate.status(initialize()).await, 503);
            assert_eq!(gate.status(from(auth, call(&id, "good"))).await, 200);
            sleep(2 * SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_a_stranger_s_word_waits_until_nobody_uses_it() {
    for shared in [false, true] {
        let store = match shared {
            true => TestStore::default().remote(),
            false => TestStore::default(),
        };
        let one = |layer: mcp_session_layer::McpSessionLayer| {
            layer.with_max_sessions(std::num::NonZeroU64::MIN)
        };
        let gate = Gate::with(&store, Way::Plain, 404, one);
        let other = Gate::with(&store, Way::Plain, 404, one);
        let id = gate.open(OWNER).await;
        let asked = if shared { &other } else { &gate };
        assert_eq!(asked.status(from(STRANGER, call(&id, "good"))).await, 404);
        // Used within a beat, a third of the hour that it may be idle.
        for _ in 0..3 {
            sleep(19 * MINUTE).await;
            assert_eq!(asked.status(initialize()).await, 503, "{shared}");
            assert_eq!(gate.status(from(OWNER, call(&id, "good"))).await, 200);
            assert_eq!(asked.status(from(STRANGER, call(&id, "good"))).await, 404);
        }
        sleep(21 * MINUTE).await;
        assert_eq!(asked.status(initialize()).await, 200, "{shared}");
        assert_eq!(gate.status(from(OWNER, call(&id, "good"))).await, 404);
    }
}

/// It is used while another node makes room. Then it stays, or its owner is not served: never both.
#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_nobody_is_evicted_who_has_just_been_served() {
    let one = |layer: mcp_session_layer::McpSessionLayer| {
        layer.with_max_sessions(std::num::NonZeroU64::MIN)
    };
    let (mut stayed, mut went) = (0, 0);
    for offset in 0..40 {
        let store = TestStore::default().with_delay(SECOND / 10);
        let gate = Gate::with(&store, Way::Plain, 404, one);
        let other = Gate::with(&store, Way::Plain, 404, one);
        let id = gate.open(OWNER).await;
        assert_eq!(other.status(from(STRANGER, call(&id, "good"))).await, 404);
        sleep(21 * MINUTE).await;
        let used = async {
            sleep(offset * SECOND / 50).await;
            gate.status(from(OWNER, call(&id, "good"))).await
        };
        let (created, used) = tokio::join!(other.status(initialize()), used);
        sleep(SECOND).await;
        let is_live = store.peek(&id).await.is_some();
        // Whoever was served after another had its place already is no matter here.
        if used == 200 {
            assert!(is_live, "served and evicted, after {offset} steps");
            assert_eq!(created, 503);
            stayed += 1;
        } else {
            assert_eq!((created, is_live), (200, false), "after {offset} steps");
            went += 1;
        }
    }
    assert!(stayed > 0 && went > 0, "{stayed} stayed, {went} went");
}

#[tokio::test(start_paused = true)]
async fn where_a_principal_has_no_room_only_its_own_go() {
    let store = MemoryStore::new();
    let one = |layer: mcp_session_layer::McpSessionLayer| {
        layer
            .with_principal(user_header)
            .with_max_sessions_per_principal(std::num::NonZeroU64::MIN)
    };
    let mut ids = Vec::new();
    for user in ["alice", "bob"] {
        let gate = Gate::with(&store, Way::Plain, 404, one);
        let created = gate.send(as_user(initialize(), user)).await;
        ids.push(id_of(&created).unwrap());
    }
    let gate = Gate::with(&store, Way::Plain, 404, one);
    assert_eq!(
        gate.status(as_user(call(&ids[0], "good"), "alice")).await,
        404
    );
    assert_eq!(gate.status(as_user(initialize(), "bob")).await, 503);
    assert_eq!(
        gate.status(as_user(call(&ids[1], "good"), "bob")).await,
        404
    );
    assert_eq!(gate.status(as_user(initialize(), "bob")).await, 200);
    assert_eq!(gate.layer.sessions().count().await.unwrap(), 2);
}
