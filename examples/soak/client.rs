//! As much of an MCP client as this needs.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::{
    judge::{Judge, Outcome},
    node::REVISION,
};

/// Sends requests on connections that are kept, and has each answer judged. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Body>,
    nodes: Arc<[SocketAddr]>,
    judge: Arc<Judge>,
}

/// A session as its client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) id: HeaderValue,
    /// What its `initialize` said, and the service repeats.
    pub(crate) name: String,
    /// Whose it is; nobody's if it is empty.
    pub(crate) user: String,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// As a client is told that the store is away, or that it asks too often.
    pub(crate) fn is_retry_later(&self) -> bool {
        matches!(self.status, 429 | 503) && self.headers.contains_key("retry-after")
    }
}

impl Client {
    pub(crate) fn new(nodes: impl IntoIterator<Item = SocketAddr>, judge: Arc<Judge>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            pool: Pool::builder(TokioExecutor::new()).build(connector),
            nodes: nodes.into_iter().collect(),
            judge,
        }
    }

    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A request of MCP to one of the nodes.
    pub(crate) fn request(
        &self,
        node: usize,
        method: Method,
        body: impl Into<Body>,
    ) -> Request<Body> {
        let node = self.nodes[node % self.nodes.len()];
        Request::builder()
            .method(method)
            .uri(format!("http://{node}/mcp"))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.into())
            .expect("a request")
    }

    /// The same on a session, by somebody.
    pub(crate) fn on(
        &self,
        node: usize,
        method: Method,
        id: &HeaderValue,
        user: &str,
        body: impl Into<Body>,
    ) -> Request<Body> {
        let mut request = self.request(node, method, body);
        let headers = request.headers_mut();
        headers.insert(SESSION, id.clone());
        headers.insert(VERSION, HeaderValue::from_static(REVISION));
        name_user(headers, user);
        request
    }

    /// Opens a session. `None`: the store was away.
    pub(crate) async fn open(&self, node: usize, name: String, user: &str) -> Option<Live> {
        let initialize = INITIALIZE.replace("a client", &name);
        let mut request = self.request(node, Method::POST, initialize);
        name_user(request.headers_mut(), user);
        let is_right =
            |answer: &Answer| answer.status == 200 && answer.headers.contains_key(SESSION);
        let answer = self
            .send("initialize", request, is_right)
            .await
            .if_right()?;
        let user = user.to_owned();
        let id = answer.headers[SESSION].clone();
        Some(Live { id, name, user })
    }

    /// A call on a live session, which has to be answered with what is the session's own.
    pub(crate) async fn call(&self, node: usize, session: &Live) -> Outcome {
        let request = self.on(node, Method::POST, &session.id, &session.user, CALL);
        let is_right = |answer: &Answer| {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            answer.status == 200 && body["result"]["client"] == session.name.as_str()
        };
        let outcome = self.send("call", request, is_right).await;
        if let Outcome::Wrong(Some(404)) = outcome {
            self.judge.lost();
        }
        outcome
    }

    /// Says that a session is in use, as clients do after `initialize`.
    pub(crate) async fn initialized(&self, node: usize, session: &Live) -> Outcome {
        let request = self.on(node, Method::POST, &session.id, &session.user, INITIALIZED);
        self.send("initialized", request, |answer| answer.status == 202)
            .await
    }

    /// Sends a request whose answer has to be of this status.
    pub(crate) async fn expect(
        &self,
        what: &'static str,
        status: u16,
        request: Request<Body>,
    ) -> Outcome {
        self.send(what, request, |answer| answer.status == status)
            .await
    }

    pub(crate) async fn send(
        &self,
        what: &'static str,
        request: Request<Body>,
        is_right: impl FnOnce(&Answer) -> bool,
    ) -> Outcome {
        let asked = self.judge.asks();
        let answer = self.exchange(request).await;
        self.judge.judge(what, asked, answer, is_right)
    }

    async fn exchange(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let (head, body) = self.head(request).await?.into_parts();
        let body = Limited::new(body, 64 << 10).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }

    /// An answer whose body may never end.
    pub(crate) async fn head(&self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        Ok(self.pool.request(request).await?)
    }

    /// How many sessions a node's store holds.
    pub(crate) async fn count(&self) -> anyhow::Result<usize> {
        let mut request = self.request(0, Method::GET, Body::empty());
        *request.uri_mut() = format!("http://{}/count", self.nodes[0]).parse()?;
        let answer = self.exchange(request).await?;
        Ok(std::str::from_utf8(&answer.body)?.parse()?)
    }
}

fn name_user(headers: &mut HeaderMap, user: &str) {
    if !user.is_empty() {
        let user = HeaderValue::from_str(user).expect("a name");
        headers.insert("x-user", user);
    }
}

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"a client","version":"1"}}}"#;
pub(crate) const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"whoami"}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
