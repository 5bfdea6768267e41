//! A gateway that is asked to stop.

use std::{process::Command, time::Duration};

use axum::body::Body;
use futures_util::FutureExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    gateway::support::process::asked_to_stop,
    rig::{Gateway, PATIENCE},
    server::Server,
    support::requests::{get, post, with_header},
};

#[tokio::test]
async fn at_sigterm_what_is_under_way_is_answered_and_streams_end() {
    let (server, address) = Server::start().await;
    let mut terminated = Box::pin(asked_to_stop());
    assert!(terminated.as_mut().now_or_never().is_none());
    let upstream = format!("--upstream=http://{address}");
    let gateway = Gateway::until(terminated, &[&upstream]).await;
    let id = gateway.open().await;
    let stream = gateway.send(get(&id)).await.into_body();
    let seen = server.seen().len();
    let mut slow = Box::pin(gateway.send(with_header(post(&id), "x-do", "one second")));
    tokio::select! {
        _ = &mut slow => panic!("too early"),
        () = server.until_seen(seen + 1) => {}
    }
    let pid = std::process::id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.unwrap().success());
    assert_eq!(slow.await.status(), 200);
    let end = timeout(PATIENCE, stream.collect()).await.expect("an end");
    assert!(end.is_ok(), "a proper end: {end:?}");
    let address = gateway.address;
    gateway.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_never_ends_is_cut_off_after_the_time_of_grace() {
    let (server, address) = Server::start().await;
    let gateway = Gateway::with(address, &["--grace=1s"]).await;
    let id = gateway.open().await;
    // One on a session and one that is none of the layer's.
    let seen = server.seen().len();
    let mut call = Box::pin(gateway.send(with_header(post(&id), "x-do", "wait")));
    tokio::select! {
        _ = &mut call => panic!("there is no answer"),
        () = server.until_seen(seen + 1) => {}
    }
    let other = Request::get("/stream").header("host", "localhost");
    let other = gateway.send(other.body(Body::empty()).unwrap()).await;
    let began = Instant::now();
    gateway.stop();
    assert_eq!(call.await.status(), 503);
    gateway.stopped().await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < PATIENCE,
        "{took:?}"
    );
    drop(other);
}
