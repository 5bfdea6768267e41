//! Every query of the dashboard asks for what there is to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use axum::body::Body;
use http::Request;
use mcp_session_layer::{CachedStore, MemoryStore};
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt as _;

use crate::{
    app, example, forgetful, layer,
    numbers::{self, alone},
    support::{
        answers::send,
        requests::{delete, get, initialize, on, post},
        store::{AWAY, TestStore},
        time::SECOND,
    },
};

#[test]
fn every_query_finds_its_metrics_with_their_labels() {
    alone(async |_| {
        something_of_everything().await;
        let there = labels_by_name();
        let mut asked_for = BTreeSet::new();
        for query in queries() {
            let Query { labels, metrics } = Query::read(&query);
            assert!(!metrics.is_empty(), "asks for nothing: {query}");
            for metric in metrics {
                let known = there
                    .get(&metric)
                    .unwrap_or_else(|| panic!("no {metric}: {query}"));
                for label in &labels {
                    let comes_with_scraping = ["job", "instance"].contains(&&**label);
                    assert!(
                        comes_with_scraping || known.contains(label),
                        "{metric} has no {label}: {query}"
                    );
                }
                asked_for.insert(family(&metric).to_owned());
            }
        }
        let there: BTreeSet<_> = there.keys().map(|name| family(name).to_owned()).collect();
        assert_eq!(asked_for, there, "what is counted is shown");
    });
}

#[test]
fn the_example_hands_out_the_text() {
    alone(async |_| {
        let app = example::app(MemoryStore::new(), numbers::recorder());
        let dead = send(&app, post("dead")).await;
        assert_eq!(dead.status, 404);
        let scrape = Request::get("/metrics").body(Body::empty()).unwrap();
        let text = send(&app, scrape).await.body;
        let help =
            "# HELP mcp_session_layer_refusals_total Requests that the session layer refused.";
        assert!(text.contains(help), "{text}");
        assert!(
            text.contains("\nmcp_session_layer_refusals_total{kind=\"unknown\"} "),
            "{text}"
        );
    });
}

/// Each thing that is counted happens once at least.
async fn something_of_everything() {
    let on_memory = forgetful(&layer(MemoryStore::new()));
    for end in [delete, |id: &str| on(id, "PUT")] {
        let id = send(&on_memory, initialize()).await.id();
        let stream = on_memory.clone().oneshot(get(&id)).await.unwrap();
        send(&on_memory, end(&id)).await;
        send(&on_memory, post(&id)).await;
        drop(stream);
    }
    let store = TestStore::default().remote();
    let cached = app(&layer(CachedStore::new(store.clone(), SECOND)));
    let id = send(&cached, initialize()).await.id();
    send(&cached, post(&id)).await;
    sleep(2 * SECOND).await;
    store.disturb(&["touch", "load", "make_room"], AWAY);
    send(&cached, post(&id)).await;
    assert_eq!(send(&cached, initialize()).await.status, 503);
}

fn labels_by_name() -> BTreeMap<String, BTreeSet<String>> {
    let mut there = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, labels) in numbers::read().into_keys() {
        there.entry(name).or_default().extend(labels.into_keys());
    }
    there
}

/// A histogram is three metrics.
fn family(name: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    let part = parts.iter().find_map(|part| name.strip_suffix(part));
    part.unwrap_or(name)
}

/// All strings under `expr`, and what the variables are filled with.
fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let expr = fields.get("expr").and_then(Value::as_str);
                found.extend(expr.map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let text = fs::read_to_string("docs/grafana.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    assert!(found.len() > 10, "{found:?}");
    found
}

/// The names in a query. That is not all of PromQL, so a query with anything else in it fails.
struct Query {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

impl Query {
    fn read(text: &str) -> Self {
        let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
        let mut rest = text;
        let mut in_list = false;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let (word, after) = rest.split_at(word.unwrap_or(rest.len()));
            rest = match first {
                '"' => rest[1..].split_once('"').expect("it ends").1,
                '[' => rest.split_once(']').expect("it ends").1,
                '{' => {
                    in_list = true;
                    &rest[1..]
                }
                '}' | ')' => {
                    in_list = false;
                    &rest[1..]
                }
                _ if word.is_empty() => &rest[1..],
                _ => {
                    let is_number = first.is_ascii_digit();
                    match word {
                        "by" => in_list = true,
                        "sum" | "rate" | "histogram_quantile" => {
                            assert!(after.starts_with(['(', ' ']));
                        }
                        label if in_list => _ = labels.insert(label.to_owned()),
                        _ if is_number => {}
                        metric => {
                            assert!(after.starts_with('{'), "{metric} is of no job: {text}");
                            metrics.insert(metric.to_owned());
                        }
                    }
                    after
                }
            };
        }
        Self { metrics, labels }
    }
}
