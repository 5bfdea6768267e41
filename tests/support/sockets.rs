//! Servers on real sockets.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

/// Serves until the test is over.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}
