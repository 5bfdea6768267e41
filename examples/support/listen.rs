//! Where an example listens, and what it says when it cannot.

use std::{
    env,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Listens on the loopback address, on the port that `PORT` names; without it on 3000.
pub(crate) async fn listen() -> anyhow::Result<TcpListener> {
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| {
            anyhow::anyhow!(
                "PORT={port} is not a port: a number from 0 to 65535 (0: any that is free)"
            )
        })?,
        Err(_) => 3000,
    };
    listen_on(port, "set PORT to another one, as in PORT=3001").await
}

/// Listens on a port of the loopback address. `otherwise` says how to choose another.
pub(crate) async fn listen_on(port: u16, otherwise: &str) -> anyhow::Result<TcpListener> {
    listen_at((Ipv4Addr::LOCALHOST, port).into(), otherwise).await
}

/// The same on any address.
pub(crate) async fn listen_at(address: SocketAddr, otherwise: &str) -> anyhow::Result<TcpListener> {
    let port = address.port();
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => anyhow::bail!(
            "port {port} is in use: end what listens there, or {otherwise} (0: any that is free)"
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            anyhow::bail!("port {port} is not for everybody: {otherwise}, above 1023")
        }
        listener => listener.with_context(|| format!("could not listen on {address}: {otherwise}")),
    }
}
