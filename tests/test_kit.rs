//! The test kit does what it says: each fault, and a server and a client that keep to the protocol.
#![cfg(feature = "test-kit")]

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
};
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    Change, McpSessionLayer, MemoryStore, Rejection, RejectionKind, Scope, SessionId,
    SessionStore as _,
    store::{EndReason, Expiry, Found, Now, SessionFilter, StoreErrorKind, Terms},
    testing::{Fault, FaultyStore, McpClient, McpServer, Verb},
};
use tokio::time::{Instant, timeout};
use tower::Layer as _;

use support::{
    layer::user_header,
    sessions::{fresh_session, idle_left, insert, owner, terms},
    time::MINUTE,
};

mod support;

async fn store_with_a_session() -> (FaultyStore<MemoryStore>, SessionId) {
    let store = FaultyStore::new(MemoryStore::new());
    let session = fresh_session();
    let terms = Terms {
        initial_idle: MINUTE,
        ..terms()
    };
    insert(&store, &session, &terms).await;
    (store, session.id().clone())
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_says() {
    let kind = StoreErrorKind::Unavailable;
    // Whether it takes effect, whether it answers well, and when.
    for (fault, takes_effect, answers, after) in [
        (Fault::Fails(kind), false, false, Duration::ZERO),
        (Fault::FailsAfterEffect(kind), true, false, Duration::ZERO),
        (Fault::Delays(MINUTE / 6), true, true, MINUTE / 6),
        (Fault::AnswersLate(MINUTE / 6), true, true, MINUTE / 6),
        (Fault::LosesWrites, false, true, Duration::ZERO),
    ] {
        let (store, id) = store_with_a_session().await;
        store.disturb([Verb::Touch, Verb::Delete], fault);
        let begun = Instant::now();
        let touched = store.touch(&id, &owner(None), 10 * MINUTE).await;
        assert_eq!(touched.is_ok_and(|found| found.is_some()), answers);
        assert_eq!(begun.elapsed(), after, "{fault:?}");
        let is_extended = idle_left(store.inner(), id.expose()).await.unwrap() > MINUTE;
        assert_eq!(is_extended, takes_effect, "{fault:?}");
        let deleted = store.delete(&id, EndReason::Revoked).await;
        assert_eq!(deleted.is_ok_and(|was_live| was_live), answers);
        assert_eq!(
            idle_left(store.inner(), id.expose()).await.is_none(),
            takes_effect,
            "{fault:?}"
        );
        assert_eq!((store.calls(Verb::Touch), store.calls(Verb::Load)), (1, 0));
    }
}

/// A caller that gives up finds out what a fault has done by then.
#[tokio::test(start_paused = true)]
async fn a_fault_takes_its_effect_before_it_waits_or_after_it_or_never() {
    for (fault, takes_effect) in [
        (Fault::Delays(MINUTE / 6), false),
        (Fault::AnswersLate(MINUTE / 6), true),
        (Fault::Hangs, false),
    ] {
        let (store, id) = store_with_a_session().await;
        store.disturb(Verb::ALL, fault);
        let delete = store.delete(&id, EndReason::Revoked);
        assert!(timeout(MINUTE / 12, delete).await.is_err(), "{fault:?}");
        let is_live = idle_left(store.inner(), id.expose()).await.is_some();
        assert_eq!(is_live, !takes_effect, "{fault:?}");
    }
    let (store, id) = store_with_a_session().await;
    let hanging = store.clone();
    hanging.disturb(Verb::ALL, Fault::Hangs);
    let touch_now = || store.touch_now(&id, &owner(None), MINUTE);
    assert!(matches!(touch_now(), Now::Unknown));
    assert!(timeout(60 * MINUTE, store.load(&id)).await.is_err());
    hanging.recover();
    let load = timeout(MINUTE, store.load(&id)).await;
    assert!(load.is_ok_and(|load| load.is_ok()));
    assert_eq!(store.calls(Verb::Touch), 0);
    assert!(matches!(touch_now(), Now::Absent), "an hour has passed");
    assert_eq!(hanging.calls(Verb::Touch), 1);
}

/// It answers as a sound store does, and nothing has changed.
#[tokio::test(start_paused = true)]
async fn a_write_is_lost_whatever_the_verb() {
    for verb in Verb::ALL {
        let (lossy, id) = store_with_a_session().await;
        let (sound, other) = store_with_a_session().await;
        let before = state(&lossy, &id).await;
        lossy.disturb([verb], Fault::LosesWrites);
        let answer = ask(&lossy, verb, &id).await;
        assert_eq!(answer, ask(&sound, verb, &other).await);
        assert_eq!(state(&lossy, &id).await, before, "{verb:?}");
        let reads = [Verb::Load, Verb::MakeRoom, Verb::Expire].contains(&verb);
        assert_eq!(state(&sound, &other).await == before, reads, "{verb:?}");
        for counted in Verb::ALL {
            let first = u64::from(counted == Verb::Create);
            let expected = first + u64::from(counted == verb);
            assert_eq!(lossy.calls(counted), expected, "{verb:?} {counted:?}");
        }
    }
    let (store, id) = store_with_a_session().await;
    store.disturb(Verb::ALL, Fault::LosesWrites);
    let stranger = owner(Some("stranger"));
    let change = Change::new().set("a", "1");
    assert!(store.touch(&id, &stranger, MINUTE).await.unwrap().is_none());
    let changed = store.change(&id, &stranger, &change).await;
    assert!(changed.unwrap().is_none());
}

type Faulty = FaultyStore<MemoryStore>;

/// What there is of a session, and how many there are.
async fn state(store: &Faulty, id: &SessionId) -> String {
    let all = SessionFilter::Scope(Scope::default());
    let count = store.inner().directory().unwrap().count(&all).await;
    let found = store.inner().load(id).await.unwrap();
    format!("{} {}", count.unwrap(), told(found))
}

fn told(found: Option<Found>) -> String {
    let Some(found) = found else {
        return "absent".to_owned();
    };
    let times = (found.age, found.idle_left, found.life_left);
    let (owner, values) = (found.session.owner(), found.session.values());
    format!("{times:?} {owner:?} {values:?}")
}

/// Calls a verb, and says what it answered.
async fn ask(store: &Faulty, verb: Verb, id: &SessionId) -> String {
    let mine = owner(None);
    let fresh = fresh_session();
    let change = Change::new().set("a", "1");
    let found = match verb {
        Verb::Create => return format!("{:?}", store.create(&fresh, &terms()).await),
        Verb::MakeRoom => return format!("{:?}", store.make_room(&fresh, &terms()).await),
        Verb::Delete => return format!("{:?}", store.delete(id, EndReason::Revoked).await),
        Verb::DeleteIdle => {
            let deleted = store.delete_idle(id, 2 * MINUTE, EndReason::Revoked).await;
            return format!("{deleted:?}");
        }
        Verb::Expire => match store.expire(id).await.unwrap() {
            Expiry::Left(found) => Some(found),
            Expiry::Over => None,
        },
        Verb::Load => store.load(id).await.unwrap(),
        Verb::Touch => store.touch(id, &mine, 10 * MINUTE).await.unwrap(),
        Verb::Change => store.change(id, &mine, &change).await.unwrap(),
        Verb::Claim => {
            let alice = owner(Some("alice"));
            store.claim(id, &alice, 10 * MINUTE).await.unwrap()
        }
    };
    told(found)
}

/// What comes next on a stream. It does not stay silent.
async fn next(stream: &mut Body) -> Option<Bytes> {
    let frame = timeout(MINUTE, stream.frame()).await.unwrap();
    frame.map(|frame| frame.unwrap().into_data().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_a_server_and_the_layer_between_them() {
    for (server, has_sessions) in [
        (McpServer::new(), true),
        (McpServer::without_sessions(), false),
    ] {
        let layer = McpSessionLayer::new(MemoryStore::new());
        let app: Router = Router::new().route_service("/mcp", layer.layer(server.clone()));
        let mut client = McpClient::new(app.clone(), "/mcp");
        assert_eq!(client.initialize().await.unwrap().status(), 200);
        assert_eq!(server.sessions(), usize::from(has_sessions));
        assert_eq!(client.ping().await.unwrap().status(), 200);
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(client.post(note).await.unwrap().status(), 202);
        let stream = client.open_stream().await.unwrap();
        let mut stream = stream.into_body();
        server.notify("{}");
        assert_eq!(next(&mut stream).await.unwrap(), "data: {}\n\n");
        let before = server.requests();
        let mut other = McpClient::new(app, "/mcp");
        other.use_session(client.session().cloned());
        assert_eq!(other.delete().await.unwrap().status(), 204);
        let refused = client.ping().await.unwrap();
        let why = refused.extensions().get().map(Rejection::kind);
        assert_eq!(refused.status(), 404);
        assert!(matches!(
            why,
            Some(RejectionKind::Ended | RejectionKind::Unknown)
        ));
        assert_eq!(server.requests(), before + u64::from(has_sessions));
        assert!(next(&mut stream).await.is_none());
        assert_eq!(server.sessions(), usize::from(!has_sessions));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_knows_its_own_sessions_only() {
    let server = McpServer::new();
    let mut client = McpClient::new(server.clone(), "/mcp");
    client.initialize().await.unwrap();
    let first = client.session().cloned();
    // A new session, whatever the client had.
    client.initialize().await.unwrap();
    assert!(first.is_some() && first != client.session().cloned());
    assert_eq!(server.sessions(), 2);
    assert_eq!(client.delete().await.unwrap().status(), 204);
    assert_eq!(client.ping().await.unwrap().status(), 404);
    client.use_session(first);
    assert_eq!(client.ping().await.unwrap().status(), 200);
    let mut stream = client.open_stream().await.unwrap().into_body();
    server.forget_sessions();
    assert!(next(&mut stream).await.is_none());
    assert_eq!(client.ping().await.unwrap().status(), 404);
    assert_eq!(server.requests(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_client_sends_its_headers_with_every_request() {
    let layer = McpSessionLayer::new(MemoryStore::new()).with_principal(user_header);
    let service = layer.layer(McpServer::new());
    let anonymous = McpClient::new(service, "/mcp");
    let user = HeaderName::from_static("x-user");
    let mut alice = anonymous
        .clone()
        .with_header(user, HeaderValue::from_static("alice"));
    alice.initialize().await.unwrap();
    assert_eq!(alice.ping().await.unwrap().status(), 200);
    let mut stranger = anonymous;
    stranger.use_session(alice.session().cloned());
    assert_eq!(stranger.ping().await.unwrap().status(), 404);
    assert_eq!(alice.delete().await.unwrap().status(), 204);
}
