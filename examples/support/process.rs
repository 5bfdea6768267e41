//! A process that writes a log and leaves when it is asked to.

use axum::Router;
use mcp_session_layer::admin::AllowedHosts;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::listen::listen_on;

/// To stderr, as `RUST_LOG` says.
pub(crate) fn write_log() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,rmcp=warn".into());
    tracing_subscriber::fmt()
        // This part of rmcp writes session ids into its logs, and an id is a secret.
        .with_env_filter(
            filter.add_directive("rmcp::transport::streamable_http_server=off".parse()?),
        )
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Serves what administers sessions, on loopback only: it asks for no authentication.
pub(crate) async fn serve_admin(port: u16, admin: Router) -> anyhow::Result<()> {
    let listener = listen_on(port, "name another with --admin-port").await?;
    println!("http://{}/sessions", listener.local_addr()?);
    // Nor does a browser, for any web page that it shows.
    let admin = AllowedHosts::loopback().protect(admin);
    tokio::spawn(async move { axum::serve(listener, admin).await });
    Ok(())
}

/// Ready when the process gets SIGTERM or SIGINT.
pub(crate) async fn asked_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("shutting down");
}
