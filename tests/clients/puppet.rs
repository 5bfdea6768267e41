//! Does with rmcp's client what a script says, line by line; see puppets.mjs.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::Mutex,
    time::timeout,
};

use super::Client;

#[derive(Deserialize)]
struct Order {
    order: u64,
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    args: Value,
    /// How many milliseconds a call may take.
    limit: Option<u64>,
}

type Clients = Arc<Mutex<HashMap<String, Arc<Client>>>>;

#[tokio::test]
#[ignore = "obeys tests/servers/run"]
async fn puppet() {
    let clients = Clients::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("stdin") {
        let order: Order = serde_json::from_str(&line).expect("an order");
        let clients = Arc::clone(&clients);
        tokio::spawn(async move {
            let number = order.order;
            // The test harness writes lines of its own, some without an end.
            let said = match obey(&clients, order).await {
                Ok(result) => json!({ "order": number, "result": result }),
                Err(error) => json!({ "order": number, "error": format!("{error:#}") }),
            };
            println!("\n{said}");
        });
    }
}

async fn obey(clients: &Clients, order: Order) -> anyhow::Result<Value> {
    let client = clients.lock().await.get(&order.name).cloned();
    let client = || client.ok_or_else(|| anyhow::anyhow!("no such client"));
    Ok(match order.what.as_str() {
        "connect" => {
            let connected = Arc::new(Client::connect(&order.url).await?);
            clients.lock().await.insert(order.name, connected);
            Value::Null
        }
        "call" => {
            let limit = Duration::from_millis(order.limit.unwrap_or(u64::MAX / 2));
            let client = client()?;
            let call = client.call(order.tool.leak(), order.args);
            timeout(limit, call).await??.into()
        }
        "heard" => client()?.rmcp.service().heard.load(Relaxed).into(),
        "wire" => {
            let exchanges = client()?.relay.exchanges();
            let exchanges = exchanges.iter().map(|exchange| {
                let id = exchange.sent("mcp-session-id");
                json!({
                    "method": exchange.method(),
                    "status": exchange.status().parse::<u16>().ok(),
                    "id": id.or_else(|| exchange.got("mcp-session-id")),
                    "ended": exchange.ended,
                })
            });
            exchanges.collect()
        }
        "close" => {
            clients.lock().await.remove(&order.name);
            Value::Null
        }
        "ready" => Value::Null,
        other => anyhow::bail!("cannot {other}"),
    })
}
