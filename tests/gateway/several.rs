//! Several servers behind several gateways, which share a store.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::Method;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    rig::{Gateway, PATIENCE, free_port, text},
    server::Server,
    support::{
        answers::NOT_FOUND,
        requests::{delete, get, initialize, on, post, with_header},
    },
};

/// A store of the test's own, which two gateways may share.
struct Store(PathBuf);

impl Store {
    fn new() -> Self {
        let name = format!("gateway-{}.db", uuid::Uuid::new_v4());
        Self(std::env::temp_dir().join(name))
    }

    fn flag(&self) -> String {
        format!("--store=sqlite://{}", self.0.display())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}

async fn gateway(servers: &[(&str, SocketAddr)], flags: &[&str]) -> Gateway {
    let named =
        |(name, address): &(&str, SocketAddr)| format!("--upstream={name}=http://{address}");
    let upstreams: Vec<_> = servers.iter().map(named).collect();
    let upstreams: Vec<_> = upstreams.iter().map(String::as_str).collect();
    Gateway::start(&[&upstreams, flags].concat()).await
}

/// How many requests of a session this server has seen, by method.
fn asked(server: &Server, id: &str, method: &Method) -> usize {
    let seen = server.seen();
    let of_it = seen.iter().filter(|head| {
        head.method == *method
            && head
                .headers
                .get("mcp-session-id")
                .is_some_and(|seen| seen == id)
    });
    of_it.count()
}

#[tokio::test]
async fn a_session_stays_where_it_was_created_whichever_gateway_is_asked() {
    let ((a, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let store = Store::new();
    let servers = [("a", at_a), ("b", at_b)];
    let first = gateway(&servers, &[&store.flag()]).await;
    let second = gateway(&servers, &[&store.flag()]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(first.open().await);
        ids.push(second.open().await);
    }
    let births = |server: &Server| server.seen().len();
    assert_eq!((births(&a), births(&b)), (4, 2), "in turn, on each gateway");
    let (mut on_a, mut on_b) = (0, 0);
    for id in &ids {
        for gateway in [&first, &second, &first] {
            assert_eq!(gateway.status(post(id)).await, 200);
        }
        match (asked(&a, id, &Method::POST), asked(&b, id, &Method::POST)) {
            (3, 0) => on_a += 1,
            (0, 3) => on_b += 1,
            torn => panic!("{torn:?}"),
        }
    }
    assert_eq!((on_a, on_b), (4, 2));
}

#[tokio::test]
async fn a_new_session_goes_where_the_load_is_least() {
    let ((a, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[("a", at_a), ("b", at_b)], &[]).await;
    let id = gateway.open().await;
    let (busy, free) = match a.seen().len() {
        1 => (&a, &b),
        _ => (&b, &a),
    };
    let streams = [gateway.send(get(&id)).await, gateway.send(get(&id)).await];
    for _ in 0..3 {
        gateway.open().await;
    }
    assert_eq!((busy.seen().len(), free.seen().len()), (3, 3));
    drop(streams);
    busy.hung_up().await;
    busy.hung_up().await;
    gateway.open().await;
    assert_eq!(busy.seen().len(), 4, "in turn again");
}

#[tokio::test]
async fn a_new_session_goes_to_one_that_answers() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let (server, address) = Server::start().await;
    let gateway = gateway(&[("a", nobody), ("b", address)], &[]).await;
    for _ in 0..3 {
        let id = gateway.open().await;
        assert_eq!(gateway.status(post(&id)).await, 200);
    }
    assert_eq!(server.seen().len(), 6, "three times two");
}

#[tokio::test]
async fn what_the_layer_sends_by_itself_goes_to_the_session_s_server_too() {
    let ((a, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[("a", at_a), ("b", at_b)], &["--idle-timeout=1s"]).await;
    let [used, other, idle] = [
        gateway.open().await,
        gateway.open().await,
        gateway.open().await,
    ];
    for id in [&used, &other, &idle] {
        assert_eq!(gateway.status(post(id)).await, 200);
    }
    // Its server has more to do than the other one, which anything without a place would go to.
    let stream = gateway.send(get(&used)).await;
    let ids = [&other, &idle];
    let told = async {
        for id in ids {
            while asked(&a, id, &Method::DELETE) + asked(&b, id, &Method::DELETE) == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("told of its end");
    for id in ids {
        for server in [&a, &b] {
            let served = asked(server, id, &Method::POST);
            assert_eq!(asked(server, id, &Method::DELETE), served);
        }
    }
    drop(stream);
}

#[tokio::test]
async fn what_the_layer_asks_is_asked_of_the_session_s_server() {
    let ((a, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[("a", at_a), ("b", at_b)], &[]).await;
    let [used, other, idle] = [
        gateway.open().await,
        gateway.open().await,
        gateway.open().await,
    ];
    // As above: anything without a place would go to the other server.
    let stream = gateway.send(get(&used)).await;
    let refused = with_header(post(&idle), "x-do", "refuse");
    assert_eq!(gateway.status(refused).await, 400, "it lives");
    assert_eq!(gateway.status(post(&idle)).await, 200);

    match asked(&a, &used, &Method::GET) {
        1 => a.forget(),
        _ => b.forget(),
    }
    let forgotten = gateway.send(post(&used)).await;
    assert_eq!(forgotten.status(), 404);
    assert_eq!(text(forgotten).await, NOT_FOUND);
    assert_eq!(gateway.status(post(&other)).await, 200);
    drop(stream);
}

/// An `initialize` on a live session is its server's to answer. The id in the answer is taken back, and nobody but the server
/// knows whose it is.
#[tokio::test]
async fn a_session_that_was_never_recorded_is_taken_back_from_its_server() {
    let ((a, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[("a", at_a), ("b", at_b)], &[]).await;
    let id = gateway.open().await;
    gateway.open().await;
    // As above: the other server is asked first.
    let stream = gateway.send(get(&id)).await;
    let again = with_header(initialize(), "mcp-session-id", &id);
    let answer = gateway.send(again).await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("mcp-session-id"));
    let taken_back = async {
        while (a.sessions(), b.sessions()) != (1, 1) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, taken_back).await.expect("taken back");
    drop(stream);
}

#[tokio::test]
async fn a_server_that_is_not_configured_is_gone_for_this_gateway_alone() {
    let ((_, at_a), (b, at_b)) = (Server::start().await, Server::start().await);
    let store = Store::new();
    let first = gateway(&[("a", at_a)], &[&store.flag()]).await;
    let id = first.open().await;
    let second = gateway(&[("b", at_b)], &[&store.flag()]).await;
    for method in ["POST", "GET", "DELETE"] {
        let answer = second.send(on(&id, method)).await;
        assert_eq!(answer.status(), 404, "{method}");
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(text(answer).await, NOT_FOUND);
    }
    assert!(b.seen().is_empty());
    assert_eq!(first.status(post(&id)).await, 200, "it lives");
    assert_eq!(first.status(delete(&id)).await, 204);
}

/// Servers `a` and `b`, a session on `a`, and how to stop `a`.
async fn two(
    flags: &[&str],
) -> (
    Gateway,
    String,
    SocketAddr,
    Server,
    JoinHandle<()>,
    JoinHandle<()>,
) {
    let (a, b) = (Server::new(), Server::new());
    let ((at_a, runs_a), (at_b, runs_b)) = (a.listen(0).await, b.listen(0).await);
    let gateway = gateway(&[("a", at_a), ("b", at_b)], flags).await;
    let mut id = gateway.open().await;
    while a.seen().is_empty() {
        id = gateway.open().await;
    }
    (gateway, id, at_a, a, runs_a, runs_b)
}

/// A connection of the pool may be open for a moment still.
async fn until_away(gateway: &Gateway, id: &str) {
    let away = async {
        while gateway.status(post(id)).await == 200 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, away).await.expect("away");
}

#[tokio::test]
async fn a_server_that_is_away_for_long_is_given_up_if_another_is_there() {
    let (gateway, id, address, a, runs_a, runs_b) = two(&["--give-up-after=3s"]).await;
    runs_a.abort();
    sleep(Duration::from_secs(3)).await;
    until_away(&gateway, &id).await;
    assert_eq!(gateway.status(post(&id)).await, 502, "not at once");
    let given_up = async {
        while gateway.status(post(&id)).await != 404 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, given_up).await.expect("given up");
    assert_eq!(gateway.status(initialize()).await, 200, "by the other");

    // It has ended nothing.
    let (_, runs_a) = a.listen(address.port()).await;
    let back = async {
        while gateway.status(post(&id)).await != 200 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("back");
    runs_a.abort();
    runs_b.abort();
}

/// Nobody uses it any more, on whichever gateway: it ends. One that another gateway serves is that one's.
#[tokio::test]
async fn sessions_of_a_server_that_is_given_up_end_once_no_gateway_uses_them() {
    let ((a, at_a), (_, at_b)) = (Server::start().await, Server::start().await);
    // To one gateway `a` is at a port where nobody listens.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let store = Store::new();
    let flags = [&*store.flag(), "--idle-timeout=9s", "--give-up-after=1s"];
    let there = gateway(&[("a", at_a), ("b", at_b)], &flags).await;
    let here = gateway(&[("a", nobody), ("b", at_b)], &flags).await;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let id = there.open().await;
        if asked(&a, &id, &Method::POST) + usize::from(there.status(post(&id)).await == 200) > 0
            && asked(&a, &id, &Method::POST) > 0
        {
            ids.push(id);
        }
    }
    let [used, unused] = [&ids[0], &ids[1]];
    let given_up = async {
        for id in [used, unused] {
            while here.status(post(id)).await != 404 {
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    timeout(PATIENCE, given_up).await.expect("given up");
    let start = std::time::Instant::now();
    while asked(&a, unused, &Method::DELETE) == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it never ends");
        assert_eq!(there.status(post(used)).await, 200, "it is in use");
        sleep(Duration::from_millis(500)).await;
    }
    // Its time is 9 s.
    assert!(
        start.elapsed() < Duration::from_millis(8_900),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(there.status(post(used)).await, 200);
}

#[tokio::test]
async fn a_gateway_that_reaches_nobody_gives_nobody_up() {
    let (gateway, id, _, _, runs_a, runs_b) = two(&["--give-up-after=1s"]).await;
    runs_a.abort();
    runs_b.abort();
    sleep(Duration::from_secs(3)).await;
    for _ in 0..20 {
        assert_eq!(gateway.status(post(&id)).await, 502);
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn unless_told_otherwise_no_server_is_given_up() {
    let (gateway, id, _, _, runs_a, _runs_b) = two(&[]).await;
    runs_a.abort();
    sleep(Duration::from_secs(3)).await;
    for _ in 0..20 {
        assert_eq!(gateway.status(post(&id)).await, 502);
        sleep(Duration::from_millis(200)).await;
    }
}
