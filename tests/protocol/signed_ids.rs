//! Signed session ids: only the wire has them, and what is not proven is refused without a look-up.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::{Issuer, RejectionKind, Scope, SessionEvent, SigningKeys};
use tower::{Layer as _, Service};

use crate::{
    inner::{Inner, json, with_ids},
    setup::{over, plant, remote_store},
    support::{
        answers::{NOT_FOUND, RESULT, lines, send},
        layer::{SessionLayer, user_header},
        log::Log,
        requests::{as_user, initialize, on, post},
        sessions::{owner, reference},
        store::TestStore,
    },
};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];
/// A dot and 43 characters.
const TAG: usize = 44;

fn signed(store: &TestStore, keys: SigningKeys) -> SessionLayer {
    over(store)
        .with_principal(user_header)
        .with_signed_ids(keys)
}

/// Its id without the tag.
fn inner_id(wire: &str) -> &str {
    &wire[..wire.len() - TAG]
}

async fn create<S>(service: &S) -> String
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    send(service, initialize()).await.id()
}

async fn status<S>(service: &S, id: &str) -> u16
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    send(service, post(id)).await.status
}

fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3600)
}

/// As the inner service issues it, of any length, and as the layer does where it issues none.
#[tokio::test(start_paused = true)]
async fn only_the_wire_has_the_tag() {
    for (store, issued) in [
        (remote_store(), 0),
        (TestStore::default(), 1),
        (remote_store(), 1000),
        (TestStore::default(), 1024),
    ] {
        let inner = Inner::new(move |call| match call.session {
            // As many services do, it says the id again.
            Some(_) => with_ids(json(200, RESULT), &[&*"x".repeat(issued)][..issued.min(1)]),
            None if issued > 0 => with_ids(json(200, RESULT), &[&*"x".repeat(issued)]),
            None => json(200, RESULT),
        });
        let layer = signed(&store, SigningKeys::new(OLD));
        let mut events = layer.sessions().subscribe();
        let service = layer.layer(inner.clone());
        let wire = send(&service, as_user(initialize(), "alice")).await.id();
        inner.calls();
        let id = inner_id(&wire);
        assert!(issued == 0 || id == "x".repeat(issued));
        assert!(store.peek(id).await.is_some());
        let Some(SessionEvent::Created {
            reference: told, ..
        }) = events.next().await
        else {
            panic!("not created")
        };
        assert_eq!(told, reference(id));
        for method in ["POST", "GET"] {
            let answer = send(&service, as_user(on(&wire, method), "alice")).await;
            assert_eq!(answer.status, 200, "{issued}");
            let echoes = (issued > 0).then(|| wire.clone());
            assert_eq!(answer.ids(), Vec::from_iter(echoes));
            let call = inner.calls().pop().unwrap();
            let expected = (issued > 0).then(|| id.to_owned());
            assert_eq!(
                lines(&call.headers, "mcp-session-id"),
                Vec::from_iter(expected)
            );
            assert_eq!(call.session.unwrap().id().expose(), id);
        }
        let ended = send(&service, as_user(on(&wire, "DELETE"), "alice")).await;
        assert_eq!(ended.status / 100, 2);
        let dead = send(&service, as_user(post(&wire), "alice")).await;
        assert_eq!((dead.status, &*dead.body), (404, NOT_FOUND));
    }
}

/// Ten thousand of them, and no call of the store.
#[tokio::test(start_paused = true)]
async fn what_is_forged_is_404_and_costs_no_look_up() {
    for store in [TestStore::default(), remote_store()] {
        let inner = Inner::silent();
        let service = signed(&store, SigningKeys::new(OLD)).layer(inner.clone());
        let other_key = signed(&store, SigningKeys::new(NEW)).layer(inner.clone());
        let other_scope = signed(&store, SigningKeys::new(OLD))
            .with_scope(Scope::new("other"))
            .layer(inner.clone());
        let wire = create(&service).await;
        let ended = create(&service).await;
        assert_eq!(send(&service, on(&ended, "DELETE")).await.status, 204);
        let unknown = send(&service, post(&ended)).await;
        assert_eq!(unknown.status, 404);
        let tag = &wire[wire.len() - TAG..];
        let bobs = send(&service, as_user(initialize(), "bob")).await.id();
        let mut forged = vec![
            inner_id(&wire).to_owned(),
            tag.to_owned(),
            ".".to_owned(),
            format!("{}{tag}", inner_id(&bobs)),
            format!("{wire}{tag}"),
            format!("{wire}="),
            format!("x{wire}"),
            bobs.clone(),
            create(&other_key).await,
            create(&other_scope).await,
            "x".repeat(1024 + TAG),
            "x".repeat(1024 + TAG + 1),
        ];
        forged.extend((1..wire.len()).map(|end| wire[..end].to_owned()));
        for at in 0..wire.len() {
            for byte in ['A', 'a', '.', '~'] {
                let mut altered = wire.clone();
                altered.replace_range(at..=at, &byte.to_string());
                forged.push(altered);
            }
        }
        forged.retain(|forged| *forged != wire);
        inner.calls();
        store.take_calls();
        let mut asked = 0;
        for (forged, method) in forged
            .iter()
            .cycle()
            .zip(["POST", "GET", "DELETE"].iter().cycle())
        {
            let answer = send(&service, on(forged, method)).await;
            assert_eq!(answer.wire(), unknown.wire(), "{forged}");
            asked += 1;
            if asked == 10_000 {
                break;
            }
        }
        assert_eq!(store.take_calls(), [""; 0]);
        assert!(inner.calls().is_empty());
        for (wire, caller) in [(&wire, "bob"), (&bobs, "carol")] {
            let answer = send(&service, as_user(post(wire), caller)).await;
            answer.assert_not_found(RejectionKind::Forged);
        }
        assert_eq!(store.take_calls(), [""; 0]);
        assert_eq!(status(&service, &wire).await, 200);
    }
}

/// A session that a login has claimed keeps the tag of nobody. Whose it is the store says.
#[tokio::test(start_paused = true)]
async fn a_login_claims_a_session_with_nobody_s_tag() {
    for store in [TestStore::default(), remote_store()] {
        let inner = Inner::issuing(&["issued"]);
        let layer = signed(&store, SigningKeys::new(OLD)).with_claim_on_login();
        let service = layer.layer(inner.clone());
        let wire = create(&service).await;
        assert_eq!(status(&service, &wire).await, 200);
        let answer = send(&service, as_user(post(&wire), "alice")).await;
        assert_eq!((answer.status, answer.id()), (200, wire.clone()));
        assert_eq!(store.principal_of("issued").await.unwrap(), "alice");
        for (caller, expected) in [(Some("alice"), 200), (Some("bob"), 404), (None, 404)] {
            let request = match caller {
                Some(user) => as_user(post(&wire), user),
                None => post(&wire),
            };
            assert_eq!(send(&service, request).await.status, expected, "{caller:?}");
        }
        // A principal's own is not to be claimed by whoever leaves the principal out.
        let bobs = {
            let service = layer.layer(Inner::silent());
            send(&service, as_user(initialize(), "bob")).await.id()
        };
        assert_eq!(status(&service, &bobs).await, 404);
        assert_eq!(
            send(&service, as_user(post(&bobs), "bob")).await.status,
            200
        );
    }
}

/// Nodes are restarted one by one, first with the keys and then, by time, signing; a client moves between all of them.
#[tokio::test(start_paused = true)]
async fn no_session_is_lost_while_signed_ids_are_introduced() {
    let store = remote_store();
    let inner = Inner::silent();
    let introducing = |signs_from, until| {
        let keys = SigningKeys::new(OLD)
            .sign_from(signs_from)
            .insecure_accept_unsigned_until(until);
        signed(&store, keys).layer(inner.clone())
    };
    let before = over(&store)
        .with_principal(user_header)
        .layer(inner.clone());
    let known = introducing(in_an_hour(), in_an_hour());
    let signing = introducing(an_hour_ago(), in_an_hour());
    let done = introducing(in_an_hour(), an_hour_ago());

    let (old, newer) = (create(&before).await, create(&known).await);
    // A part of an id that happens to look like a tag is none.
    let odd = format!("a.{}", "A".repeat(43));
    plant(&store, &odd, owner(None), Issuer::Layer).await;
    for unsigned in [&old, &newer, &odd] {
        for node in [&before, &known, &signing] {
            assert_eq!(status(node, unsigned).await, 200, "{unsigned}");
        }
        assert_eq!(status(&done, unsigned).await, 404, "{unsigned}");
    }
    // It ends with its date, and whoever still issues unsigned ids signs from there on.
    for node in [&signing, &done] {
        let wire = create(node).await;
        assert!(store.peek(inner_id(&wire)).await.is_some());
        for node in [&known, &signing, &done] {
            assert_eq!(status(node, &wire).await, 200);
        }
    }
    // An ill-formed one stays one.
    let long = "x".repeat(1025);
    send(&signing, post(&long))
        .await
        .assert_not_found(RejectionKind::Forged);
}

#[tokio::test]
async fn unsigned_ids_are_accepted_until_their_date() {
    let store = remote_store();
    let end = SystemTime::now() + Duration::from_millis(400);
    let keys = SigningKeys::new(OLD).insecure_accept_unsigned_until(end);
    let service = signed(&store, keys).layer(Inner::silent());
    plant(&store, "old", owner(None), Issuer::Layer).await;
    assert_eq!(status(&service, "old").await, 200);
    while SystemTime::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&service, "old").await, 404);
}

#[tokio::test(start_paused = true)]
async fn no_session_is_lost_while_keys_are_changed() {
    let store = remote_store();
    let inner = Inner::issuing(&["issued"]);
    let node = |keys| signed(&store, keys).layer(Inner::silent());
    let steps = [
        node(SigningKeys::new(OLD)),
        node(SigningKeys::new(OLD).add_verifying(NEW)),
        node(SigningKeys::new(NEW).add_verifying(OLD)),
        node(SigningKeys::new(NEW)),
    ];
    // While one step goes over to the next, nodes of both serve.
    for pair in steps.windows(2) {
        let [before, after] = pair else {
            unreachable!()
        };
        for (created, used) in [(before, after), (after, before)] {
            let wire = create(created).await;
            assert_eq!(status(used, &wire).await, 200);
        }
    }
    let first = create(&steps[0]).await;
    for node in &steps[..3] {
        assert_eq!(status(node, &first).await, 200);
    }
    assert_eq!(status(&steps[3], &first).await, 404);
    // What the inner service says again goes out as it came.
    let wire = create(&signed(&store, SigningKeys::new(OLD)).layer(inner.clone())).await;
    let newer = signed(&store, SigningKeys::new(NEW).add_verifying(OLD)).layer(inner);
    assert_eq!(send(&newer, post(&wire)).await.id(), wire);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_be_told_is_still_500() {
    let store = remote_store();
    let service = signed(&store, SigningKeys::new(OLD)).layer(Inner::silent());
    let answer = send(&service, as_user(post("forged"), "!")).await;
    assert_eq!(answer.kind(), Some(RejectionKind::PrincipalFailed));
}

/// The log names the session that a request was about by its own reference, whether the request could prove anything or not.
#[tokio::test(start_paused = true)]
async fn the_log_names_a_session_without_the_tag_of_its_id() {
    let store = remote_store();
    let service = signed(&store, SigningKeys::new(OLD)).layer(Inner::silent());
    let wire = create(&service).await;
    let ended = create(&service).await;
    assert_eq!(send(&service, on(&ended, "DELETE")).await.status, 204);
    let log = Log::default();
    let _guard = log.listen();
    let (id, unsigned) = (inner_id(&wire), "unsigned");
    for (request, reason, named) in [
        (post(&ended), "unknown", inner_id(&ended)),
        (as_user(post(&wire), "bob"), "forged", id),
        (as_user(post(&wire), "!"), "principal_failed", id),
        (post(unsigned), "forged", unsigned),
    ] {
        send(&service, request).await;
        let line = log.take();
        let said = format!("reason=\"{reason}\" session={} ", reference(named));
        assert!(line.contains(&said), "{said}: {line}");
        assert!(!line.contains(named), "{line}");
    }
}

/// A session that the inner service has forgotten is looked up in another way.
#[tokio::test(start_paused = true)]
async fn a_marked_session_has_to_prove_itself_too() {
    let store = remote_store();
    let inner = Inner::new(|call| match call.session {
        Some(_) => json(404, "{}"),
        None => with_ids(json(200, RESULT), &["issued"]),
    })
    .questioned(|_| json(404, "{}"));
    let other = Inner::silent();
    let a = signed(&store, SigningKeys::new(OLD)).layer(Inner::issuing(&["issued"]));
    let b = signed(&store, SigningKeys::new(OLD)).layer(inner);
    let c = signed(&store, SigningKeys::new(OLD)).layer(other);
    let wire = create(&a).await;
    // Told by a node that never served it: the session is only marked there.
    let answer = send(&b, post(&wire)).await;
    assert_eq!(
        (answer.status, answer.kind()),
        (404, Some(RejectionKind::InnerGone))
    );
    store.take_calls();
    send(&b, post("issued"))
        .await
        .assert_not_found(RejectionKind::Forged);
    assert_eq!(store.take_calls(), [""; 0]);
    assert_eq!(send(&b, post(&wire)).await.status, 404);
    assert_eq!(status(&c, &wire).await, 200);
}
