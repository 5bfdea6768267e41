//! A TCP relay that notes what goes over each connection.
//!
//! rmcp's client opens a new connection for every request and does not tell its session id, so one
//! connection is one exchange, and the wire is the place to look.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// One request and its answer, as far as they have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The answer came to its proper end: the last chunk of a stream has gone by.
    pub(crate) ended: bool,
}

impl Exchange {
    pub(crate) fn method(&self) -> String {
        word(&self.request, 0)
    }

    pub(crate) fn status(&self) -> String {
        word(&self.answer, 1)
    }

    pub(crate) fn sent(&self, header: &str) -> Option<String> {
        value(&self.request, header)
    }

    pub(crate) fn got(&self, header: &str) -> Option<String> {
        value(&self.answer, header)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Relay(Arc<Mutex<Vec<Exchange>>>);

impl Relay {
    /// Starts relaying to the server of `url`, and answers the URL to use instead.
    pub(crate) async fn start(url: &str) -> anyhow::Result<(Self, String)> {
        let relay = Self::default();
        let target = address(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = url.replace(&target, &listener.local_addr()?.to_string());
        let this = relay.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(this.clone().pass(client, target.clone()));
            }
        });
        Ok((relay, url))
    }

    /// What has gone over the wire by now, in the order in which it began.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.0.lock().unwrap().clone()
    }

    async fn pass(self, client: TcpStream, target: String) -> std::io::Result<()> {
        let server = TcpStream::connect(target).await?;
        let number = {
            let mut exchanges = self.0.lock().unwrap();
            exchanges.push(Exchange::default());
            exchanges.len() - 1
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let up = copy(from_client, to_server, |bytes| {
            keep_head(&mut self.0.lock().unwrap()[number].request, bytes);
        });
        let down = copy(from_server, to_client, |bytes| {
            let exchange = &mut self.0.lock().unwrap()[number];
            keep_head(&mut exchange.answer, bytes);
            exchange.ended = bytes.ends_with(b"0\r\n\r\n");
        });
        // A server may stop reading before it has said all that it has to say; not the other way
        // round.
        let up = async {
            up.await.ok();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = down => done,
            () = up => Ok(()),
        }
    }
}

/// The `host:port` of an `http` URL.
pub(crate) fn address(url: &str) -> &str {
    url.split('/').nth(2).expect("http://host:port/path")
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut note: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            count => {
                note(&buffer[..count]);
                to.write_all(&buffer[..count]).await?;
            }
        }
    }
}

/// Grows `head` until it holds the empty line that ends it.
fn keep_head(head: &mut Vec<u8>, bytes: &[u8]) {
    if !head.windows(4).any(|end| end == b"\r\n\r\n") {
        head.extend_from_slice(bytes);
    }
}

fn word(head: &[u8], nth: usize) -> String {
    let head = String::from_utf8_lossy(head);
    head.split_whitespace().nth(nth).unwrap_or_default().into()
}

fn value(head: &[u8], header: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let head = head.split("\r\n\r\n").next()?;
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case(header))
        .map(|(_, value)| value.to_owned())
}
