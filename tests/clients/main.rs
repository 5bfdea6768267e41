//! What rmcp's client has to live through.
//!
//! `MCP_URL` names a server that runs already; without it, each test serves an example itself.

#![allow(clippy::duplicate_mod)] // Examples share files.

use std::{
    env,
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::Router;
use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{CallToolRequestParams, ProtocolVersion, ResourceUpdatedNotificationParam},
    service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, RunningService},
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use self::{
    relay::{Exchange, Relay},
    support::{answers::NOT_FOUND, sockets},
};

mod login;
#[path = "../../examples/plain_axum.rs"]
#[allow(dead_code, unreachable_pub)]
mod plain_axum;
mod puppet;
#[path = "../../examples/quickstart.rs"]
#[allow(dead_code, unreachable_pub)]
mod quickstart;
mod relay;
#[path = "../support/mod.rs"]
mod support;

#[tokio::test]
async fn tools() -> anyhow::Result<()> {
    let url = server(quickstart::app).await?;
    let client = Client::connect(&url).await?;
    let listed = client.rmcp.list_all_tools().await?;
    let mut names: Vec<_> = listed.iter().map(|tool| tool.name.as_ref()).collect();
    names.sort();
    check("lists the tools", names, ["add", "counter", "echo"]);
    let hello = client.call("echo", json!({"message": "hello"})).await?;
    check("echo answers", hello, "hello");
    let sum = client.call("add", json!({"a": 2, "b": 3})).await?;
    check("add adds", sum, "5");
    let count = client.call("counter", json!({})).await?;
    check("counter starts", count, "1");
    let count = client.call("counter", json!({})).await?;
    check("counter goes on", count, "2");
    let other = Client::connect(&url).await?;
    let count = other.call("counter", json!({})).await?;
    check("another session has its own counter", count, "1");
    Ok(())
}

#[tokio::test]
async fn stream() -> anyhow::Result<()> {
    let url = server(quickstart::app).await?;
    let client = Client::connect(&url).await?;
    let get = || client.exchange(|exchange| exchange.method() == "GET");
    until(|| get().is_some_and(|get| get.got("content-type").is_some())).await;
    let opened = get().expect("a GET request");
    check("opens the GET stream", opened.status(), "200");
    let kind = opened.got("content-type");
    check("as an event stream", kind, Some("text/event-stream".into()));
    sleep(Duration::from_secs(1)).await;
    let hello = client.call("echo", json!({"message": "hello"})).await?;
    check("calls go on beside it", hello, "hello");
    let ended = get().map(|get| get.ended);
    check("it stays open while silent", ended, Some(false));
    end_from_outside(&url, &client.id()).await?;
    until(|| get().is_some_and(|get| get.ended)).await;
    let ended = get().map(|get| get.ended);
    check("the stream ends with its session", ended, Some(true));
    Ok(())
}

#[tokio::test]
async fn delete() -> anyhow::Result<()> {
    let url = server(quickstart::app).await?;
    let client = Client::connect(&url).await?;
    let id = client.id();
    let hello = client.call("echo", json!({"message": "hello"})).await?;
    check("the session is alive", hello, "hello");
    let relay = client.relay.clone();
    client.rmcp.cancel().await?;
    let deletes: Vec<_> = relay
        .exchanges()
        .iter()
        .filter(|exchange| exchange.method() == "DELETE")
        .map(|exchange| exchange.status()[..1].to_owned())
        .collect();
    check("deletes its session when it leaves", deletes, ["2"]);
    for method in ["POST", "GET", "DELETE"] {
        let (status, body) = raw(&url, method, &id).await?;
        check(&format!("{method} with the dead id is 404"), status, 404);
        check(&format!("{method} is told why"), body, NOT_FOUND);
    }
    Ok(())
}

/// rmcp's client is the one that helps itself: told 404, it initializes anew and calls again.
#[tokio::test]
async fn ended() -> anyhow::Result<()> {
    let url = server(quickstart::app).await?;
    let client = Client::connect(&url).await?;
    let id = client.id();
    let mib = "x".repeat(1024 * 1024);
    client.call("counter", json!({})).await?;
    let echo = client.call("echo", json!({"message": mib})).await?;
    check("1 MiB goes through a live session", echo.len(), mib.len());
    end_from_outside(&url, &id).await?;
    let echo = client.call("echo", json!({"message": mib})).await?;
    check(
        "a 1 MiB call goes through all the same",
        echo.len(),
        mib.len(),
    );
    let refused = client.exchange(|exchange| exchange.status() == "404");
    let refused = refused.and_then(|refused| refused.sent("mcp-session-id"));
    check(
        "after a 404 for the ended session",
        refused.as_ref(),
        Some(&id),
    );
    let ids = client.session_ids();
    check("and one new session", ids.len(), 2);
    check("which is another one", ids[1] == id, false);
    let count = client.call("counter", json!({})).await?;
    check("and stays in use", count, "1");
    check("without a third", client.session_ids().len(), 2);
    Ok(())
}

/// A client that prefers 2026-07-28, and a server that speaks it: no session is needed.
#[tokio::test]
async fn modern() -> anyhow::Result<()> {
    let client = Client::negotiate(&server(quickstart::app).await?).await?;
    let hello = client.call("echo", json!({"message": "hello"})).await?;
    check("calls without a session", hello, "hello");
    let ids = client.relay.exchanges();
    let ids = ids.iter().filter(|exchange| {
        exchange.sent("mcp-session-id").is_some() || exchange.got("mcp-session-id").is_some()
    });
    check("no session id goes over the wire", ids.count(), 0);
    Ok(())
}

/// The same client, and a server that has only sessions.
#[tokio::test]
async fn fallback() -> anyhow::Result<()> {
    let client = Client::negotiate(&server(plain_axum::app).await?).await?;
    check("takes a session instead", client.session_ids().len(), 1);
    let count = client.call("counter", json!({})).await?;
    check("and works", count, "1");
    Ok(())
}

/// rmcp's client, with its defaults, and what it sends and gets.
struct Client {
    rmcp: RunningService<RoleClient, Ears>,
    relay: Relay,
}

/// Counts the notifications that a client gets.
#[derive(Default)]
struct Ears {
    heard: AtomicU64,
}

impl ClientHandler for Ears {
    async fn on_resource_updated(
        &self,
        _: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.heard.fetch_add(1, Relaxed);
    }
}

impl Client {
    async fn connect(url: &str) -> anyhow::Result<Self> {
        let (relay, url) = Relay::start(url).await?;
        let transport = StreamableHttpClientTransport::from_uri(url);
        let rmcp = Ears::default().serve(transport).await?;
        Ok(Self { rmcp, relay })
    }

    /// Asks for 2026-07-28 first, and takes 2025-11-25 if it must. The preferred versions name both:
    /// refused with a list of what the server supports, rmcp looks no further than these.
    async fn negotiate(url: &str) -> anyhow::Result<Self> {
        let (relay, url) = Relay::start(url).await?;
        let transport = StreamableHttpClientTransport::from_uri(url);
        let auto = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        let rmcp = Ears::default()
            .serve_with_lifecycle(transport, auto)
            .await?;
        Ok(Self { rmcp, relay })
    }

    async fn call(&self, name: &'static str, arguments: Value) -> anyhow::Result<String> {
        let mut call = CallToolRequestParams::new(name);
        call.arguments = arguments.as_object().cloned();
        let result = self.rmcp.call_tool(call).await?;
        let text = result.content.first().and_then(|content| content.as_text());
        Ok(text.expect("a text").text.clone())
    }

    fn exchange(&self, which: impl Fn(&Exchange) -> bool) -> Option<Exchange> {
        self.relay.exchanges().into_iter().find(which)
    }

    /// The ids of the sessions it got, in order.
    fn session_ids(&self) -> Vec<String> {
        let exchanges = self.relay.exchanges();
        let creating = exchanges
            .iter()
            .filter(|exchange| exchange.sent("mcp-session-id").is_none());
        creating
            .filter_map(|exchange| exchange.got("mcp-session-id"))
            .collect()
    }

    fn id(&self) -> String {
        self.session_ids().pop().expect("a session")
    }
}

async fn server(app: fn() -> Router) -> anyhow::Result<String> {
    if let Ok(url) = env::var("MCP_URL") {
        return Ok(url);
    }
    Ok(serve(app()).await)
}

/// The URL of the endpoint.
async fn serve(app: Router) -> String {
    format!("http://{}/mcp", sockets::serve(app).await)
}

async fn end_from_outside(url: &str, id: &str) -> anyhow::Result<()> {
    let (status, _) = raw(url, "DELETE", id).await?;
    check("the session is ended from outside", status / 100, 2);
    Ok(())
}

/// A request past the client, on a connection of its own: its status and body.
async fn raw(url: &str, method: &str, id: &str) -> anyhow::Result<(u16, String)> {
    raw_as(None, url, method, id).await
}

/// The same, with a bearer token.
async fn raw_as(
    token: Option<&str>,
    url: &str,
    method: &str,
    id: &str,
) -> anyhow::Result<(u16, String)> {
    let address = relay::address(url);
    let path = url.split_once(address).expect("it is in there").1;
    let body = match method {
        "POST" => r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        _ => "",
    };
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let authorization = authorization.unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n\
        host: {address}\r\n\
        connection: close\r\n\
        accept: application/json, text/event-stream\r\n\
        content-type: application/json\r\n\
        content-length: {}\r\n\
        mcp-protocol-version: 2025-11-25\r\n\
        {authorization}\
        mcp-session-id: {id}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("a status").parse()?;
    Ok((status, body.to_owned()))
}

#[track_caller]
#[allow(clippy::needless_pass_by_value)] // so that calls read well
fn check<G: PartialEq<W> + Debug, W: Debug>(what: &str, got: G, wanted: W) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert_eq!(got, wanted, "rmcp {test}: {what}");
    println!("ok   rmcp {test}: {what}");
}

/// Waits until it is so, 10 seconds at most. What comes next checks it.
async fn until(so: impl Fn() -> bool) {
    for _ in 0..200 {
        if so() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
