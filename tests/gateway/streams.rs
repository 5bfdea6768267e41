//! Streams: passed as they come, for as long as both ends are there.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{
    rig::{Gateway, PATIENCE},
    server::Server,
    support::requests::{get, post, request, with_header},
};

/// What comes next.
async fn next(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let frame = timeout(PATIENCE, body.frame())
        .await
        .expect("something in time")?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

#[tokio::test]
async fn events_pass_as_they_come_and_silence_ends_nothing() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    let answer = gateway.send(get(&id)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    assert!(!answer.headers().contains_key("content-length"));
    let mut body = answer.into_body();
    let events = server.stream();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send(Ok(event.into())).unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), event);
    }
    // Longer than any time that this gateway knows but the session's.
    sleep(Duration::from_secs(7)).await;
    assert!(body.frame().now_or_never().is_none(), "still open");
    events.send(Ok("data: 3\n\n".into())).unwrap();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "data: 3\n\n");
    drop(events);
    server.close();
    assert!(next(&mut body).await.is_none(), "a proper end");
}

#[tokio::test]
async fn a_body_that_is_being_sent_passes_as_it_comes() {
    let (_, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let (parts, coming) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let body = Body::from_stream(UnboundedReceiverStream::new(coming));
    let echo = request("POST").uri("/echo").body(body).unwrap();
    parts.send(Ok("one".into())).unwrap();
    let mut echoed = gateway.send(echo).await.into_body();
    assert_eq!(next(&mut echoed).await.unwrap().unwrap(), "one");
    parts.send(Ok("two".into())).unwrap();
    assert_eq!(next(&mut echoed).await.unwrap().unwrap(), "two");
    drop(parts);
    assert!(next(&mut echoed).await.is_none());
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_by_the_server() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    let stream = gateway.send(get(&id)).await;
    drop(stream);
    server.hung_up().await;

    let seen = server.seen().len();
    let waiting = gateway.send(with_header(post(&id), "x-do", "wait"));
    tokio::select! {
        _ = waiting => panic!("there is no answer"),
        () = server.until_seen(seen + 1) => {}
    }
    // Dropped with its connection, before anything was answered.
    server.hung_up().await;
    assert_eq!(gateway.status(post(&id)).await, 200);
}

#[tokio::test]
async fn a_server_that_breaks_off_is_noticed_by_the_client() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::before(address).await;
    let id = gateway.open().await;
    let mut body = gateway.send(get(&id)).await.into_body();
    let events = server.stream();
    events.send(Ok("data: 1\n\n".into())).unwrap();
    assert!(next(&mut body).await.unwrap().is_ok());
    let broken = std::io::Error::other("broken");
    events.send(Err(broken)).unwrap();
    let end = next(&mut body).await;
    assert!(matches!(end, Some(Err(_))), "not a proper end: {end:?}");
}
