//! Clients that put on the wire what they are told to, and nothing else.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

/// A test that hangs is a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One HTTP/1.1 connection.
pub(crate) struct Http1(pub(crate) BufReader<TcpStream>);

/// One HTTP/2 connection.
pub(crate) struct Http2(SendRequest<BoxBody<Bytes, Infallible>>);

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Whether the body came to the end that was promised.
    pub(crate) is_whole: bool,
}

impl Reply {
    pub(crate) fn id(&self) -> Option<&str> {
        Some(self.headers.get("mcp-session-id")?.to_str().unwrap())
    }
}

impl Http1 {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(socket))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        timeout(PATIENCE, sent).await?
    }

    /// The answer to a request that has one.
    ///
    /// # Errors
    ///
    /// When the connection ends before the head of an answer.
    pub(crate) async fn reply(&mut self) -> io::Result<Reply> {
        timeout(PATIENCE, self.read_reply()).await?
    }

    /// Reads `100 Continue`, and panics at anything else.
    pub(crate) async fn is_told_to_continue(&mut self) {
        let told = async {
            let status = self.line().await.unwrap();
            assert!(status.contains(" 100 "), "{status}");
            assert_eq!(self.line().await.unwrap(), "");
        };
        timeout(PATIENCE, told).await.expect("not told to continue");
    }

    async fn read_reply(&mut self) -> io::Result<Reply> {
        let (status, headers) = loop {
            let status = self.line().await?;
            let mut headers = HeaderMap::new();
            loop {
                let line = self.line().await?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').unwrap();
                let name = http::HeaderName::try_from(name).unwrap();
                headers.append(name, value.trim().parse().unwrap());
            }
            let status = status.split(' ').nth(1).unwrap().parse().unwrap();
            if status != 100 {
                break (status, headers);
            }
        };
        let mut body = Vec::new();
        let is_chunked = headers.contains_key("transfer-encoding");
        let ended = match headers.get("content-length") {
            Some(length) => {
                let length: usize = length.to_str().unwrap().parse().unwrap();
                self.read_exactly(length, &mut body).await
            }
            None if is_chunked => self.read_chunks(&mut body).await,
            None => Ok(()),
        };
        Ok(Reply {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
            is_whole: ended.is_ok(),
        })
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let length = usize::from_str_radix(&self.line().await?, 16);
            let length = length.map_err(io::Error::other)?;
            self.read_exactly(length, body).await?;
            self.line().await?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    async fn read_exactly(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.0).take(length as u64).read_to_end(body).await?;
        match read == length {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// A connection is closed by an end or by a reset; nothing may come before it.
    pub(crate) async fn is_open_for(&mut self, time: Duration) -> bool {
        match timeout(time, self.0.read_u8()).await {
            Ok(Ok(byte)) => panic!("{byte} after the answer"),
            Ok(Err(_)) => false,
            Err(_) => true,
        }
    }
}

impl Http2 {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a head with a body of these pieces.
    pub(crate) async fn send<S>(&self, head: Request<()>, frames: S) -> Result<Reply, hyper::Error>
    where
        S: Stream<Item = Bytes> + Send + Sync + 'static,
    {
        self.send_frames(head, frames.map(Frame::data)).await
    }

    pub(crate) async fn send_frames<S>(
        &self,
        head: Request<()>,
        frames: S,
    ) -> Result<Reply, hyper::Error>
    where
        S: Stream<Item = Frame<Bytes>> + Send + Sync + 'static,
    {
        let body = StreamBody::new(frames.map(Ok));
        let request = head.map(|()| BodyExt::boxed(body));
        let answer = async {
            let (head, mut body) = self.0.clone().send_request(request).await?.into_parts();
            let mut seen = Vec::new();
            let is_whole = loop {
                match body.frame().await {
                    Some(Ok(frame)) => seen.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            Ok(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8(seen).unwrap(),
                is_whole,
            })
        };
        timeout(PATIENCE, answer).await.expect("no answer")
    }
}
