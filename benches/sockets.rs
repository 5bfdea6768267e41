//! The resident bytes that a session costs a server, and an open stream, over real sockets.
//!
//! The server is a process of its own: the `plain_axum` example, with a stream to listen to besides; with the layer and
//! without it. A client opens each session on a connection of its own, which it closes, as most do.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    http::{Response, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use mcp_session_layer::{CreationRates, McpSessionLayer, MemoryStore, Session};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
    time::sleep,
};

use crate::{
    id_of,
    request::{INITIALIZE, INITIALIZED, PING},
    resident,
    streams::Frames,
};

/// The server. Says its port, and serves until it is killed.
pub fn serve(how: &str) {
    let app = Router::new().route("/mcp", post(mcp).get(listen));
    let app = match how {
        "bare" => app,
        "layer" => {
            let layer = McpSessionLayer::new(MemoryStore::new())
                .with_paths(["/mcp"])
                .with_creation_rates(CreationRates::unlimited())
                .with_legacy_only([REVISION]);
            app.layer(layer)
        }
        _ => panic!("bare or layer"),
    };
    Runtime::new().expect("a runtime").block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("an address").port());
        axum::serve(listener, app).await.expect("never ends");
    });
}

async fn mcp(_session: Option<Session>, Json(message): Json<Map<String, Value>>) -> Response<Body> {
    let (Some(id), Some(method)) = (message.get("id"), message.get("method")) else {
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match method.as_str() {
        Some("initialize") => json!({
            "protocolVersion": REVISION,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "benches", "version": "1"},
        }),
        _ => json!({}),
    };
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

async fn listen(_session: Option<Session>) -> Response<Body> {
    let body = Body::new(Frames::new(None, false));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// Opens so many sessions on each kind of server, then so many streams on another one.
pub fn main(sessions: usize, streams: usize) {
    println!("what\tway\tauthorization\tbytes");
    Runtime::new().expect("a runtime").block_on(async {
        for authorization in [0, 1500] {
            for how in ["bare", "layer"] {
                let bytes = of_a_session(how, authorization, sessions).await;
                println!("session\t{how}\t{authorization}\t{bytes:.0}");
            }
        }
        for authorization in [0, 1500] {
            for how in ["bare", "layer"] {
                let bytes = of_a_stream(how, authorization, streams).await;
                println!("stream\t{how}\t{authorization}\t{bytes:.0}");
            }
        }
    });
}

async fn of_a_session(how: &str, authorization: usize, sessions: usize) -> f64 {
    let server = Server::start(how, authorization);
    // So that buffers, threads and their arenas are there.
    server.open(WARM).await;
    let before = server.resident().await;
    server.open(sessions).await;
    (server.resident().await as f64 - before as f64) / sessions as f64
}

/// Each of its own session, on a connection that stays.
async fn of_a_stream(how: &str, authorization: usize, streams: usize) -> f64 {
    let server = Server::start(how, authorization);
    let mut ids = server.open(WARM + streams).await;
    let mut connections = Vec::new();
    for id in ids.split_off(streams) {
        connections.push(server.listen(&id).await);
    }
    let before = server.resident().await;
    for id in ids {
        connections.push(server.listen(&id).await);
    }
    (server.resident().await as f64 - before as f64) / streams as f64
}

struct Server {
    process: Child,
    port: u16,
    authorization: String,
}

impl Server {
    fn start(how: &str, authorization: usize) -> Self {
        let this = env::current_exe().expect("a program");
        let mut process = Command::new(this)
            .args(["serve", how])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut port = String::new();
        let said = process.stdout.take().expect("is piped");
        BufReader::new(said).read_line(&mut port).expect("its port");
        let port = port.trim().parse().expect("a port");
        let authorization = match authorization {
            0 => String::new(),
            long => format!("authorization: Bearer {}\r\n", "x".repeat(long)),
        };
        Self {
            process,
            port,
            authorization,
        }
    }

    /// Once it is idle.
    async fn resident(&self) -> u64 {
        sleep(Duration::from_secs(2)).await;
        resident(&self.process.id().to_string())
    }

    /// Opens sessions, a few at a time, and says their ids.
    async fn open(&self, sessions: usize) -> Vec<String> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (port, next) = (self.port, Arc::clone(&next));
            let authorization = self.authorization.clone();
            clients.spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= sessions {
                        return ids;
                    }
                    ids.push(open_one(port, &authorization, number).await);
                }
            });
        }
        clients.join_all().await.concat()
    }

    async fn listen(&self, id: &str) -> TcpStream {
        let mut connection = connect(self.port).await;
        let id = format!("mcp-session-id: {id}\r\n");
        ask(
            &mut connection,
            "GET",
            &format!("{}{id}", self.authorization),
            "",
        )
        .await;
        connection
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it has ended");
    }
}

/// Three requests, as every client sends them.
async fn open_one(port: u16, authorization: &str, number: usize) -> String {
    let mut connection = connect(port).await;
    let head = ask(&mut connection, "POST", authorization, INITIALIZE).await;
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("mcp-session-id: "));
    // Without the layer nobody issues one.
    let id = id.map_or_else(|| id_of(number as u64), str::to_owned);
    let headers =
        format!("{authorization}mcp-session-id: {id}\r\nmcp-protocol-version: {REVISION}\r\n");
    for body in [INITIALIZED, PING] {
        ask(&mut connection, "POST", &headers, body).await;
    }
    id
}

async fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).await;
    let connection = connection.expect("a server that accepts");
    connection.set_nodelay(true).expect("a socket");
    connection
}

/// Sends a request and reads the head of its answer, and its body if that has a length.
async fn ask(connection: &mut TcpStream, method: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: benches/1\r\n\
         accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    connection
        .write_all(request.as_bytes())
        .await
        .expect("a server that reads");
    let mut answer = Vec::new();
    let end = loop {
        let read = connection.read_buf(&mut answer).await;
        assert_ne!(read.expect("an answer"), 0, "the server hung up");
        if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(head.starts_with("http/1.1 2"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().expect("a length"));
    while answer.len() < end + length {
        let read = connection.read_buf(&mut answer).await;
        assert_ne!(read.expect("an answer"), 0, "the server hung up");
    }
    head
}

const REVISION: &str = "2025-11-25";
const CLIENTS: usize = 8;
const WARM: usize = 500;
