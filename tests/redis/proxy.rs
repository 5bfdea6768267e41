//! Something between a store and its server.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// An address that leads to a server, later perhaps to another, and can hold back what is sent.
pub(crate) struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target = Arc::new(AtomicU16::new(target));
        let held = watch::Sender::new(false);
        let (leads, holds) = (target.clone(), held.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", leads.load(Ordering::SeqCst))).await;
                let (mut requests, mut answers) = client.into_split();
                let (mut from, mut to) = server.expect("the server listens").into_split();
                let mut holds = holds.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 4096];
                    while let Ok(read @ 1..) = requests.read(&mut buffer).await {
                        let _ = holds.wait_for(|held| !held).await;
                        let _ = to.write_all(&buffer[..read]).await;
                    }
                });
                tokio::spawn(async move { copy(&mut from, &mut answers).await });
            }
        });
        Self {
            port,
            target,
            held,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where connections lead from now on.
    pub(crate) fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Whether requests wait on their way.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
