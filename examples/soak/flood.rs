//! Anonymous creations without end, at the default limits, while ten users work: they see no error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::http::Method;
use tokio::{task::JoinSet, time::interval};

use crate::{
    client::{Answer, Client, INITIALIZE},
    judge::Judge,
    node::Node,
    report::{Report, Watch},
};

pub(crate) async fn run(creations: usize, node: &Node) -> anyhow::Result<Report> {
    let judge = Arc::new(Judge::default());
    let client = Client::new([node.address], Arc::clone(&judge));
    let mut watch = Watch::new(&judge, std::slice::from_ref(node));

    let mut users = JoinSet::new();
    for number in 0..USERS {
        users.spawn(work(client.clone(), format!("user {number}")));
    }
    let begun = Arc::new(AtomicUsize::new(0));
    let mut strangers = JoinSet::new();
    for _ in 0..STRANGERS {
        let (client, begun) = (client.clone(), Arc::clone(&begun));
        strangers.spawn(async move {
            while begun.fetch_add(1, Relaxed) < creations {
                let request = client.request(0, Method::POST, INITIALIZE);
                let is_right = |answer: &Answer| answer.status == 200 || answer.is_retry_later();
                client.send("anonymous", request, is_right).await;
            }
        });
    }
    watch.load_begins();
    watch.until("flooding", strangers.join_all()).await;
    watch.load_is_over();
    // Dropping the users ends them.
    Ok(watch.report())
}

/// Twenty calls a second, and a new session every other second.
async fn work(client: Client, user: String) {
    let mut pace = interval(Duration::from_millis(50));
    let mut session = None;
    for step in 0.. {
        pace.tick().await;
        if step % 40 == 0 {
            session = client.open(0, format!("{user}, {step}"), &user).await;
        }
        if let Some(session) = &session {
            client.call(0, session).await;
        }
    }
}

const USERS: usize = 10;
const STRANGERS: usize = 32;
