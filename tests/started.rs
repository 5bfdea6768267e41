//! Started is finished: clients that hang up leave no session in the inner service that the store does not know.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use mcp_session_layer::{
    McpSessionLayer, MemoryStore, Owner, Session, SessionId, SessionRef, SessionStore, Sessions,
    store::{Created, Directory, EndReason, Feed, Found, StoreError, Terms},
};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::Layer as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_in_a_birth_leave_nothing_behind() {
    let server = Server::start().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let address = server.address;
        clients.spawn(async move {
            let mut socket = send(address, &initialize()).await;
            hang_up_after(&mut socket, client).await;
        });
        bound(&mut clients).await;
    }
    while clients.join_next().await.transpose().unwrap().is_some() {}
    let born = server.when_quiet().await;
    assert!(born > 0, "the test is about births that happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_in_a_death_leave_nothing_behind() {
    let server = Server::start().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let address = server.address;
        clients.spawn(async move {
            let id = birth(address).await;
            let delete = format!(
                "DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {id}\r\nmcp-protocol-version: 2025-11-25\r\n\r\n"
            );
            let mut socket = send(address, &delete).await;
            hang_up_after(&mut socket, client).await;
        });
        bound(&mut clients).await;
    }
    while clients.join_next().await.transpose().unwrap().is_some() {}
    let left = server.when_quiet().await;
    assert!(left < CLIENTS, "the test is about deaths that happen");
}

struct Server {
    address: SocketAddr,
    manager: Arc<LocalSessionManager>,
    sessions: Sessions,
}

impl Server {
    async fn start() -> Self {
        let manager = Arc::new(LocalSessionManager::default());
        let mcp =
            StreamableHttpService::new(|| Ok(Tools), Arc::clone(&manager), Default::default());
        let layer = McpSessionLayer::new(Slow(MemoryStore::new()));
        let sessions = layer.sessions();
        let app = Router::new().route_service("/mcp", layer.layer(mcp));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            address,
            manager,
            sessions,
        }
    }

    /// Waits until nothing changes any more, and sees that rmcp and the store hold the same sessions. How many.
    async fn when_quiet(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let before = (self.held().await, self.stored().await);
            sleep(Duration::from_millis(500)).await;
            let after = (self.held().await, self.stored().await);
            if before == after && after.0 == after.1 {
                return after.0.len();
            }
            assert!(
                Instant::now() < deadline,
                "rmcp holds {} sessions, the store {}, both {}",
                after.0.len(),
                after.1.len(),
                after.0.intersection(&after.1).count(),
            );
        }
    }

    async fn held(&self) -> BTreeSet<SessionRef> {
        let sessions = self.manager.sessions.read().await;
        let id = |id: &str| id.parse::<SessionId>().unwrap().reference();
        sessions.keys().map(|key| id(key)).collect()
    }

    async fn stored(&self) -> BTreeSet<SessionRef> {
        let listed = self.sessions.list(None, usize::MAX).await.unwrap();
        listed.iter().map(|session| session.reference).collect()
    }
}

async fn birth(address: SocketAddr) -> String {
    let mut socket = send(address, &initialize()).await;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0);
    }
    let answer = String::from_utf8(answer).unwrap();
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("mcp-session-id: "));
    id.expect("an id").to_owned()
}

fn initialize() -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// Resets the connection, between 0 and 5 ms from now.
async fn hang_up_after(socket: &mut TcpStream, client: usize) {
    sleep(Duration::from_micros(client as u64 * 37 % 5000)).await;
    socket.set_zero_linger().unwrap();
}

/// Keeps the number of clients at once within what sockets there are.
async fn bound(clients: &mut JoinSet<()>) {
    while clients.len() >= 100 {
        clients.join_next().await.transpose().unwrap();
    }
}

#[derive(Clone)]
struct Tools;

impl ServerHandler for Tools {}

/// A store whose verbs take a while.
struct Slow(MemoryStore);

impl SessionStore for Slow {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        sleep(LATENCY).await;
        self.0.create(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        sleep(LATENCY).await;
        self.0.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        sleep(LATENCY).await;
        self.0.touch(id, owner, idle).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        sleep(LATENCY).await;
        self.0.delete(id, reason).await
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.0.directory()
    }

    fn feed(&self) -> Option<Feed> {
        self.0.feed()
    }
}

const CLIENTS: usize = 2000;
const LATENCY: Duration = Duration::from_millis(2);
