//! What may lie between a store and its server.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A proxy that can lose notifications, as a transaction pooler does, or connections, as a broken network does.
pub(crate) struct Proxy {
    port: u16,
    ways: Arc<Ways>,
}

#[derive(Default)]
struct Ways {
    loses_notifications: AtomicBool,
    /// Connections before this one are no longer served, and do not know it.
    first_served: AtomicUsize,
    connections: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn to(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            ways: Arc::default(),
        };
        let (ways, host) = (Arc::clone(&proxy.ways), host.to_owned());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect((&*host, port)).await else {
                    continue;
                };
                let number = ways.connections.fetch_add(1, Ordering::SeqCst);
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(requests(Arc::clone(&ways), number, from_client, to_server));
                tokio::spawn(answers(Arc::clone(&ways), number, from_server, to_client));
            }
        });
        proxy
    }

    /// The same server, through here. Without TLS, so that what passes can be read.
    pub(crate) fn between(&self, options: PgConnectOptions) -> PgConnectOptions {
        let options = options.host("127.0.0.1").port(self.port);
        options.ssl_mode(PgSslMode::Disable)
    }

    pub(crate) fn lose_notifications(&self, lose: bool) {
        self.ways.loses_notifications.store(lose, Ordering::SeqCst);
    }

    /// From now on nothing passes through the connections of today. Nobody is told.
    pub(crate) fn lose_connections(&self) {
        let connections = self.ways.connections.load(Ordering::SeqCst);
        self.ways.first_served.store(connections, Ordering::SeqCst);
    }
}

impl Ways {
    async fn until_served(&self, number: usize) {
        if number < self.first_served.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

async fn requests(ways: Arc<Ways>, number: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        ways.until_served(number).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Message by message: a type and a length, which counts itself (PostgreSQL, message formats).
async fn answers(ways: Arc<Ways>, number: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut header = [0; 5];
    while from.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut message = header.to_vec();
        message.resize(1 + length as usize, 0);
        if from.read_exact(&mut message[5..]).await.is_err() {
            return;
        }
        ways.until_served(number).await;
        let is_notification = header[0] == b'A';
        if is_notification && ways.loses_notifications.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}
