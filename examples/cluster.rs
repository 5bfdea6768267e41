//! Two nodes of the `server` example on one store, behind a plain round-robin proxy, and what that shows: a session that goes
//! from node to node, survives a node, and is ended everywhere at once.
//!
//! ```console
//! cargo run --all-features --example cluster                                  # Redis at 127.0.0.1:6379
//! cargo run --all-features --example cluster -- postgres://postgres@127.0.0.1/postgres
//! cargo run --all-features --example cluster -- redis://127.0.0.1 --stay     # and try http://127.0.0.1:3000/mcp
//! ```

#[path = "server.rs"]
mod server;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderValue, Method, Request, Response, StatusCode, Uri},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::{sleep, timeout},
};

use self::server::support::listen::listen;

fn main() -> anyhow::Result<()> {
    match env::var_os(NODE) {
        Some(_) => server::main(),
        None => show(),
    }
}

#[tokio::main]
async fn show() -> anyhow::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let stay = arguments.iter().any(|argument| argument == "--stay");
    let store = arguments.iter().find(|argument| *argument != "--stay");
    let store = store.map_or("redis://127.0.0.1:6379", String::as_str);

    let listener = match stay {
        true => listen().await?,
        false => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    let (a, mut b) = (Node::start(store).await?, Node::start(store).await?);
    let front = proxy([a.mcp, b.mcp], listener).await?;
    println!("nodes {} and {}, in front of them {front}", a.mcp, b.mcp);

    let client = McpClient::connect(front).await?;
    println!("\n1. A session goes from node to node. rmcp restores it where it is new.");
    for _ in 0..4 {
        let (status, node) = client.ping().await?;
        println!("   ping: {status} from {node}");
        ensure!(status == StatusCode::OK);
    }

    println!("\n2. A node is killed. The session is not.");
    b.process.kill().await?;
    for _ in 0..2 {
        let (status, node) = client.ping().await?;
        println!("   ping: {status} from {node}");
        ensure!(status == StatusCode::OK);
    }
    b = Node::start_at(store, b.mcp.port()).await?;
    println!("   it is back at {}", b.mcp);
    for _ in 0..2 {
        let (status, node) = client.ping().await?;
        println!("   ping: {status} from {node}");
        ensure!(status == StatusCode::OK);
    }

    println!("\n3. The session is ended through one node. It is dead on both.");
    let sessions: Value = serde_json::from_slice(&a.admin(Method::GET, "/sessions").await?)?;
    let sessions = sessions.as_array().context("a list of sessions")?;
    for session in sessions
        .iter()
        .filter(|session| session["client"] == CLIENT)
    {
        let reference = session["reference"].as_str().context("a reference")?;
        a.admin(Method::DELETE, &format!("/sessions/{reference}"))
            .await?;
        println!("   ended {reference}");
    }
    for _ in 0..2 {
        let (status, node) = client.ping().await?;
        println!("   ping: {status} from {node}");
        ensure!(status == StatusCode::NOT_FOUND);
    }

    if stay {
        println!("\nStaying at {front} until Ctrl-C.");
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// A process of the `server` example. It ends with this one.
struct Node {
    process: Child,
    mcp: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    async fn start(store: &str) -> anyhow::Result<Self> {
        Self::start_at(store, 0).await
    }

    async fn start_at(store: &str, port: u16) -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .env(NODE, "yes")
            .args([
                "--store",
                store,
                "--admin-port",
                "0",
                "--idle-timeout",
                "5m",
            ])
            .args(["--port", &port.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().context("a piped stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut address = async || {
            let line = timeout(Duration::from_secs(20), lines.next_line()).await??;
            let uri: Uri = line.context("the node did not start")?.parse()?;
            anyhow::Ok(uri.authority().context("an address")?.as_str().parse()?)
        };
        let (admin, mcp) = (address().await?, address().await?);
        Ok(Self {
            process,
            mcp,
            admin,
        })
    }

    async fn admin(&self, method: Method, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .body(Body::empty())?;
        let answer = http().request(request).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(to_bytes(Body::new(answer), usize::MAX).await?.into())
    }
}

/// As much of an MCP client as this needs.
struct McpClient {
    url: String,
    id: HeaderValue,
}

impl McpClient {
    async fn connect(front: SocketAddr) -> anyhow::Result<Self> {
        let url = format!("http://{front}/mcp");
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"cluster","version":"1"}}}"#;
        let answer = send(&url, None, message.to_owned()).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        let id = answer.headers().get("mcp-session-id");
        let id = id.context("a session id")?.clone();
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        send(&url, Some(&id), initialized.to_owned()).await?;
        Ok(Self { url, id })
    }

    /// The status of a ping, and the node that answered.
    async fn ping(&self) -> anyhow::Result<(StatusCode, String)> {
        let message = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
        let answer = send(&self.url, Some(&self.id), message.to_owned()).await?;
        let node = answer.headers().get("x-node").context("a node")?;
        Ok((answer.status(), node.to_str()?.to_owned()))
    }
}

async fn send(
    url: &str,
    id: Option<&HeaderValue>,
    message: String,
) -> anyhow::Result<Response<hyper::body::Incoming>> {
    let mut request = Request::post(url)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json");
    if let Some(id) = id {
        request = request
            .header("mcp-session-id", id)
            .header("mcp-protocol-version", "2025-11-25");
    }
    Ok(http().request(request.body(Body::from(message))?).await?)
}

fn http() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Gives each request to the next node, and to the one after it if that one is away.
async fn proxy(nodes: [SocketAddr; 2], listener: TcpListener) -> anyhow::Result<SocketAddr> {
    let proxy = Proxy {
        nodes,
        next: Arc::default(),
        client: http(),
    };
    let app = Router::new().fallback(pass).with_state(proxy);
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

#[derive(Clone)]
struct Proxy {
    nodes: [SocketAddr; 2],
    next: Arc<AtomicUsize>,
    client: Client<HttpConnector, Body>,
}

async fn pass(State(proxy): State<Proxy>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 4 << 20).await else {
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let first = proxy.next.fetch_add(1, Relaxed);
    for at in [first, first + 1] {
        let node = proxy.nodes[at % 2];
        let mut request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = format!("http://{node}{path}").parse() else {
            return status(StatusCode::BAD_REQUEST);
        };
        *request.uri_mut() = uri;
        match proxy.client.request(request).await {
            Ok(answer) => {
                let mut answer = answer.map(Body::new);
                let name = HeaderValue::from_str(&node.to_string()).expect("an address is ASCII");
                answer.headers_mut().insert("x-node", name);
                return answer;
            }
            // Nothing was sent, so another may be asked.
            Err(error) if error.is_connect() => sleep(Duration::from_millis(10)).await,
            Err(_) => return status(StatusCode::BAD_GATEWAY),
        }
    }
    status(StatusCode::BAD_GATEWAY)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

const NODE: &str = "MCP_CLUSTER_NODE";
const CLIENT: &str = "cluster 1";
