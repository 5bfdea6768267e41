//! Connections from clients and to servers: made within a time, and noticed when the other end is gone.
//!
//! A stream may be silent for days, so silence ends nothing. An other end that has lost its power or its network is told
//! from a silent one by the system's keep-alive.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, http::Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tower::Service;

use super::passing::Offered;

/// Watches a connection that was accepted.
pub(crate) fn watch(connection: &mut TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_PROBES);
    // Events are small and are waited for.
    let set = connection
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&*connection).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection is gone already");
    }
}

/// A client that gives up a connection that cannot be made.
pub(crate) fn client() -> Client<Connector, Offered> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_PROBES));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        // Shorter than servers keep a connection (Node and uvicorn: 5 s): a request on one that is just being closed fails.
        .pool_idle_timeout(Duration::from_secs(2))
        .build(Connector(tcp))
}

/// Whether an error is a connection that could not be made in time.
pub(crate) fn took_too_long(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<Elapsed>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Resolves the name and connects, both within the time.
#[derive(Clone)]
pub(crate) struct Connector(HttpConnector);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(timeout(PATIENCE, connecting).await??) })
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: Duration = Duration::from_secs(15);
