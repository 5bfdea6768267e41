//! The layer under load for minutes: sessions by the hundred thousand, streams by the thousand, each answer judged.
//!
//! ```console
//! cargo run --release --features redis --example soak
//! cargo run --release --features redis --example soak -- flood hostile
//! ```
//!
//! | part | what |
//! | --- | --- |
//! | `one-node` | a node with its sessions in memory: creations, calls, dead ids, strangers, ends |
//! | `two-nodes` | the same on two nodes with one Redis, which is stopped, paused and killed on the way |
//! | `flood` | 200,000 anonymous creations at the default limits, while ten users work |
//! | `hostile` | a million requests that have to be refused |
//!
//! Nodes are processes of their own, on loopback, and so is the Redis: all end with this one. What was answered is printed every
//! few seconds and at the end. The exit code is 1 if any answer was not what the rules ask for, a session was lost, or a node's
//! memory grew. Needs Linux, and `redis-server` and `redis-cli` for `two-nodes`.

mod client;
mod flood;
mod hostile;
mod judge;
mod load;
mod node;
mod outages;
mod redis;
mod report;
mod stream;
mod user;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use self::{node::Node, redis::Redis, report::Report};

/// Puts the session layer under load, and judges each answer.
#[derive(Clone, Parser)]
struct Options {
    /// What to run, one after the other.
    #[arg(default_values = ["one-node", "two-nodes"])]
    parts: Vec<Part>,
    /// How long the load of `one-node` and of `two-nodes` lasts, once all sessions are there.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How many sessions there are.
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// How many of them have an open stream.
    #[arg(long, default_value_t = 5_000)]
    streams: usize,
    /// How many requests are sent in a second; 0 is as many as are answered.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// How many anonymous creations `flood` sends.
    #[arg(long, default_value_t = 200_000)]
    creations: usize,
    /// How many requests `hostile` sends.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// Be a node, with this store.
    #[arg(long, hide = true)]
    node: Option<String>,
    /// How many sessions that node may have; without it, it has the layer's default limits.
    #[arg(long, hide = true)]
    max_sessions: Option<std::num::NonZeroU64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    OneNode,
    TwoNodes,
    Flood,
    Hostile,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(store) = &options.node {
        node::serve(store, options.max_sessions).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_well = true;
    for part in &options.parts {
        let report = tokio::select! {
            report = run(*part, &options) => report?,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped"),
        };
        println!("{report}");
        is_well &= report.is_well();
    }
    println!("{}", if is_well { "all well" } else { "NOT WELL" });
    Ok(ExitCode::from(u8::from(!is_well)))
}

async fn run(part: Part, options: &Options) -> anyhow::Result<Report> {
    let room = Some(options.sessions as u64 + 2_000);
    match part {
        Part::OneNode => {
            println!("== one node, sessions in memory");
            let nodes = [Node::start("memory", room).await?];
            load::run(options, &nodes, None).await
        }
        Part::TwoNodes => {
            println!("== two nodes, sessions in Redis");
            let redis = Redis::start().await?;
            let url = redis.url();
            let nodes = [
                Node::start(&url, room).await?,
                Node::start(&url, room).await?,
            ];
            load::run(options, &nodes, Some(redis)).await
        }
        Part::Flood => {
            println!("== {} anonymous creations", options.creations);
            let node = Node::start("memory", None).await?;
            flood::run(options.creations, &node).await
        }
        Part::Hostile => {
            println!("== {} requests to be refused", options.requests);
            let node = Node::start("memory", None).await?;
            hostile::run(options.requests, &node).await
        }
    }
}

/// How often it is said how things are.
const EVERY: Duration = Duration::from_secs(5);
