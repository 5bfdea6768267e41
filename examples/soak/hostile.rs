//! Requests that have to be refused, whatever they try, and leave nothing behind.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::{
    client::{CALL, Client, INITIALIZE, Live, SESSION, VERSION},
    judge::Judge,
    node::Node,
    report::{Report, Watch},
};

pub(crate) async fn run(requests: usize, node: &Node) -> anyhow::Result<Report> {
    let judge = Arc::new(Judge::default());
    let client = Client::new([node.address], Arc::clone(&judge));
    let session = client
        .open(0, "whoever is attacked".to_owned(), "alice")
        .await;
    let session = session.context("a session")?;
    let mut watch = Watch::new(&judge, std::slice::from_ref(node));

    let next = Arc::new(AtomicUsize::new(0));
    let attack = |until: usize| {
        let mut attackers = JoinSet::new();
        for _ in 0..ATTACKERS {
            let (client, session, next) = (client.clone(), session.clone(), Arc::clone(&next));
            let address = node.address;
            attackers.spawn(async move {
                while next.load(Relaxed) < until {
                    let nth = next.fetch_add(1, Relaxed);
                    try_one(&client, &session, address, nth).await;
                }
            });
        }
        attackers.join_all()
    };
    // So that what is made once is there.
    watch.until("warming up", attack(requests / 10)).await;
    watch.load_begins();
    watch.until("attacking", attack(requests)).await;
    watch.load_is_over();
    client.call(0, &session).await;
    let count = client.count().await?;
    if count != 1 {
        judge.unexpected(format!("{count} sessions are there"));
    }
    Ok(watch.report())
}

async fn try_one(client: &Client, session: &Live, node: SocketAddr, nth: usize) {
    // Rare, because they are long.
    match nth % 100 {
        0 => {
            let request = client.request(0, Method::POST, "x".repeat(70 << 10));
            client.expect("long body", 413, request).await;
            return;
        }
        1 => {
            let request = dead(client, Method::POST, "x".repeat(256 << 10));
            client.expect("long, dead id", 404, request).await;
            return;
        }
        2 => {
            hang_up(node).await;
            client.judge().count("hangs up", 0);
            return;
        }
        _ => {}
    }
    let (what, status, request) = match nth % 13 {
        0 => ("dead id", 404, dead(client, Method::POST, CALL)),
        1 => ("dead id, GET", 404, dead(client, Method::GET, "")),
        2 => ("dead id, DELETE", 404, dead(client, Method::DELETE, "")),
        3 => {
            let request = dead(client, Method::POST, CALL);
            (
                "ill-formed id",
                404,
                with(request, SESSION, &"x".repeat(2000)),
            )
        }
        4 => {
            let stranger = client.on(0, Method::POST, &session.id, "mallory", CALL);
            ("stranger", 404, stranger)
        }
        5 => {
            let mut request = dead(client, Method::POST, CALL);
            request.headers_mut().append(SESSION, session.id.clone());
            ("two ids", 400, request)
        }
        6 => {
            let mut request = dead(client, Method::POST, CALL);
            let version = HeaderValue::from_static("2026-07-28");
            request.headers_mut().append(VERSION, version);
            ("two versions", 400, request)
        }
        7 => ("no id", 400, client.request(0, Method::POST, CALL)),
        8 => {
            let list = format!("[{INITIALIZE}]");
            ("a list", 400, client.request(0, Method::POST, list))
        }
        9 => {
            let twice = INITIALIZE.replacen('{', r#"{"method":"ping","#, 1);
            ("a key twice", 400, client.request(0, Method::POST, twice))
        }
        10 => {
            let mut request = dead(client, Method::POST, CALL);
            let uri = format!("http://{node}/%6dcp/../%6Dcp");
            *request.uri_mut() = uri.parse().expect("a path");
            ("other path", 404, request)
        }
        11 => {
            let request = dead(client, Method::POST, CALL);
            ("newer version", 400, with(request, VERSION, "2026-07-28"))
        }
        _ => {
            let mut request = dead(client, Method::GET, "");
            let event = HeaderValue::from_static("1/2");
            request.headers_mut().insert("last-event-id", event);
            ("other's events", 404, request)
        }
    };
    client.expect(what, status, request).await;
}

fn dead(client: &Client, method: Method, body: impl Into<Body>) -> Request<Body> {
    let id = uuid::Uuid::new_v4().to_string();
    let id = HeaderValue::try_from(id).expect("an id");
    client.on(0, method, &id, "", body)
}

fn with(mut request: Request<Body>, name: HeaderName, value: &str) -> Request<Body> {
    let value = HeaderValue::from_str(value).expect("a value");
    request.headers_mut().insert(name, value);
    request
}

/// In the middle of an `initialize`.
async fn hang_up(node: SocketAddr) {
    if let Ok(mut connection) = TcpStream::connect(node).await {
        let half = &INITIALIZE[..INITIALIZE.len() / 2];
        let length = INITIALIZE.len();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{half}"
        );
        let _ = connection.write_all(request.as_bytes()).await;
    }
}

const ATTACKERS: usize = 64;
