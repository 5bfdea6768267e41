//! A load of many users, and what is looked at before and after.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Options,
    client::Client,
    judge::Judge,
    node::Node,
    outages,
    redis::Redis,
    report::{Report, Watch},
    user::User,
};

/// Creates all sessions, works on them for the time, with the Redis disturbed meanwhile, and looks at last whether they are all
/// there.
pub(crate) async fn run(
    options: &Options,
    nodes: &[Node],
    redis: Option<Redis>,
) -> anyhow::Result<Report> {
    files_for(options.streams + CLIENTS)?;
    let judge = Arc::new(Judge::default());
    let client = Client::new(nodes.iter().map(|node| node.address), Arc::clone(&judge));
    let mut watch = Watch::new(&judge, nodes);

    let mut users: Vec<_> = (0..CLIENTS)
        .map(|number| User::new(number, &client, options))
        .collect();
    users = watch.until("creating", all(users, User::create)).await;
    watch.load_begins();

    let until = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let length = until - Instant::now();
    let disturbing = async {
        match redis {
            Some(redis) => outages::all(redis, length, &judge).await.map(Some),
            None => Ok(None),
        }
    };
    let working = all(users, |user| user.work(until));
    let both = async { tokio::join!(working, disturbing) };
    let (users, redis) = watch.until("working", both).await;
    // It has to be there for the last look.
    let _redis = redis?;
    watch.load_is_over();

    let users = watch.until("looking", all(users, User::look)).await;
    let expected: usize = users.iter().map(|user| user.live.len()).sum();
    let count = count(&client, expected).await?;
    if count != expected {
        judge.unexpected(format!(
            "the store holds {count} sessions, and {expected} live"
        ));
    }
    Ok(watch.report())
}

/// Lets all users do this at once, and says who they are afterwards.
async fn all<F: Future<Output = User> + Send + 'static>(
    users: Vec<User>,
    what: impl Fn(User) -> F,
) -> Vec<User> {
    let mut doing: JoinSet<_> = users.into_iter().map(what).collect();
    let mut users = Vec::new();
    while let Some(user) = doing.join_next().await {
        users.push(user.expect("no user panics"));
    }
    users
}

/// Creations that were refused while the store was away are undone when it is back.
async fn count(client: &Client, expected: usize) -> anyhow::Result<usize> {
    for _ in 0..100 {
        if client.count().await? == expected {
            return Ok(expected);
        }
        sleep(Duration::from_millis(200)).await;
    }
    client.count().await
}

/// Whether we, and the nodes, may have so many connections.
fn files_for(connections: usize) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let needed = connections + 200;
    ensure!(
        limit.is_none_or(|limit: usize| limit >= needed),
        "a process may open too few files: ulimit -n {needed}"
    );
    Ok(())
}

/// How many requests are under way at most, besides streams.
pub(crate) const CLIENTS: usize = 64;
