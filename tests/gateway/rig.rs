//! A gateway that runs, and how to call it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use clap::Parser as _;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle, time::timeout};

use crate::{
    gateway::{self, Options},
    support::requests::initialize,
};

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    stop: Arc<Notify>,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Gateway {
    /// In front of this server.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        Self::with(server, &[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn with(server: SocketAddr, flags: &[&str]) -> Self {
        let upstream = format!("--upstream=http://{server}");
        Self::start(&[&[upstream.as_str()], flags].concat()).await
    }

    pub(crate) async fn start(flags: &[&str]) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let mut gateway = Self::until(async move { stopped.notified().await }, flags).await;
        gateway.stop = stop;
        gateway
    }

    /// One that runs until this is ready.
    pub(crate) async fn until(
        stopped: impl Future<Output = ()> + Send + 'static,
        flags: &[&str],
    ) -> Self {
        let options = Options::parse_from([&["gateway"], flags].concat());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            stop: Arc::default(),
            serving: tokio::spawn(gateway::serve(options, listener, stopped)),
        }
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Once it has stopped.
    pub(crate) async fn stopped(self) {
        let stopped = timeout(PATIENCE, self.serving).await;
        stopped.expect("it leaves in time").unwrap().unwrap();
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        send(self.address, request).await
    }

    pub(crate) async fn status(&self, request: Request<Body>) -> u16 {
        self.send(request).await.status().as_u16()
    }

    /// Opens a session, and answers its id.
    pub(crate) async fn open(&self) -> String {
        let answer = self.send(initialize()).await;
        assert_eq!(answer.status(), 200);
        answer.headers()["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned()
    }
}

/// Sends a request on a connection of its own. What comes back is at its head.
pub(crate) async fn send(to: SocketAddr, mut request: Request<Body>) -> Response<Incoming> {
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(to.to_string())
        .path_and_query(request.uri().path_and_query().unwrap().clone())
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let answer = timeout(PATIENCE, client.request(request)).await;
    answer.expect("an answer in time").expect("an answer")
}

/// The rest of an answer.
pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let body = timeout(PATIENCE, answer.into_body().collect());
    let body = body.await.expect("an end in time").expect("a proper end");
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// A port at which nobody listens.
pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// For what should come soon, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
