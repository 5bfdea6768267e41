//! What tower asks of a service, and what a service that is wrapped may ask of us: to be called when it said that it
//! is ready, and only then.

use std::{
    fmt::{self, Debug},
    task::Poll,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mcp_session_layer::SessionId;
use tokio::time::timeout;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};

use self::{
    rig::{A_WHILE, PACES, Pace, Rig, WAYS, live_session, served},
    support::{
        requests::{INITIALIZE, PING, delete, get, post, request},
        time::HOUR,
    },
};

mod limits;
mod rig;
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod types;

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.allow(0);
    assert_pending!(rig.service.poll_ready::<Request<Body>>());
    rig.inner.allow(1);
    assert!(rig.service.is_woken());
    assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
}

#[tokio::test(start_paused = true)]
async fn it_fails_when_the_inner_service_does() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.send_error(Broken);
    let error = assert_ready_err!(rig.service.poll_ready::<Request<Body>>());
    assert!(error.to_string().contains(&Broken.to_string()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_does_not_reach_the_inner_service() {
    let dead = SessionId::issue();
    let refused = || {
        let long = "x".repeat(1025);
        let mut dead_initialize = post(dead.expose());
        *dead_initialize.body_mut() = INITIALIZE.into();
        let with_two = |name, values: [&str; 2]| {
            let request = request("POST").header(name, values[0]);
            let request = request.header(name, values[1]);
            request.body(Body::from(PING)).unwrap()
        };
        let bare = |method, body| request(method).body(Body::from(body)).unwrap();
        [
            (404, post(dead.expose())),
            (404, dead_initialize),
            (404, get(dead.expose())),
            (404, delete(dead.expose())),
            (404, post("two words")),
            (404, post(&long)),
            (400, post("")),
            (400, bare("POST", PING)),
            (400, bare("GET", "")),
            (400, bare("DELETE", "")),
            (400, with_two("mcp-session-id", ["a", "b"])),
            (
                400,
                with_two("mcp-protocol-version", ["2025-06-18", "2026-07-28"]),
            ),
        ]
    };
    for pace in PACES {
        let mut rig = Rig::new(pace).await;
        for (nth, (status, request)) in refused().into_iter().enumerate() {
            rig.inner.allow(1);
            assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
            let answer = timeout(HOUR, rig.service.call(request))
                .await
                .expect("an answer");
            assert_eq!(answer.unwrap().status(), status, "{pace:?} {nth}");
        }
        // Nor does it later, from a task of its own.
        tokio::time::sleep(HOUR).await;
        assert_pending!(rig.inner.poll_request(), "{pace:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_waits_for_the_inner_service() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        let mut answer = task::spawn(rig.call(way));
        let called = async {
            while answer.poll().is_pending() {
                if let Poll::Ready(call) = rig.inner.poll_request() {
                    return call.unwrap();
                }
                tokio::time::sleep(A_WHILE).await;
            }
            panic!("answered without the inner service");
        };
        let (_, respond) = timeout(HOUR, called).await.expect("an inner call");
        tokio::time::sleep(HOUR).await;
        assert_pending!(answer.poll(), "{pace:?} {way:?}");
        respond.send_response(Response::new(Body::from("done")));
        let answer = timeout(HOUR, answer).await.expect("an answer").unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{pace:?} {way:?}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "done", "{pace:?} {way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_is_passed_on_as_it_is() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        let answer = rig.call(way);
        let fails = async {
            let (_, respond) = rig.inner.next_request().await.unwrap();
            respond.send_error(Broken);
        };
        let (answer, ()) = served(answer, fails).await;
        let error = answer.expect_err("an error");
        assert!(error.is::<Broken>(), "{pace:?} {way:?}: {error}");
        // What failed has ended nothing.
        assert!(rig.is_live().await, "{pace:?} {way:?}");
    }
}

/// The mock panics when it is called without having said that it is ready, as a buffer or a limit does: so this fails
/// where a clone is called in place of the service that was asked.
#[tokio::test(start_paused = true)]
async fn only_the_service_that_said_it_was_ready_is_called() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        for _ in 0..3 {
            if !rig.is_live().await {
                rig.id = live_session(&rig.store).await;
            }
            let answer = rig.call(way);
            // What stays behind has to ask again, before the inner service is called as after.
            rig.inner.allow(0);
            assert_pending!(
                rig.service.poll_ready::<Request<Body>>(),
                "{pace:?} {way:?}"
            );
            let answers = async {
                let (_, respond) = rig.inner.next_request().await.unwrap();
                respond.send_response(Response::new(Body::empty()));
            };
            let (answer, ()) = served(answer, answers).await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{pace:?} {way:?}");
            assert_pending!(
                rig.service.poll_ready::<Request<Body>>(),
                "{pace:?} {way:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_at_once_uses_no_permission_up() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.allow(1);
    for _ in 0..3 {
        assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
        let request = post(SessionId::issue().expose());
        let mut answer = task::spawn(rig.service.call(request));
        let answer = assert_ready_ok!(answer.poll());
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}

/// An error of the inner service's own.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inner service is broken")
    }
}

impl std::error::Error for Broken {}
