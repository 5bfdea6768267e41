//! The examples do what their heads say. Those that the real clients use are tested there too.

#![allow(clippy::duplicate_mod)] // Examples share files.

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::RejectionKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::support::{
    answers::{Answer, send},
    requests::{INITIALIZE, INITIALIZED, on, request, with_header},
    sessions::reference,
};

#[path = "../../examples/first.rs"]
#[allow(dead_code, unreachable_pub)]
mod first;
#[path = "../../examples/jwt.rs"]
#[allow(dead_code)]
mod jwt;
#[path = "../../examples/support/listen.rs"]
mod listen;
mod listening;
#[cfg(feature = "conformance")]
#[path = "../../examples/own_store.rs"]
#[allow(dead_code)]
mod own_store;
#[path = "../../examples/plain_hyper.rs"]
#[allow(dead_code)]
mod plain_hyper;
#[path = "../../examples/several.rs"]
#[allow(dead_code)]
mod several;
#[path = "../support/mod.rs"]
mod support;
mod tokens;

/// A request of one message.
fn message(path: &str, id: Option<&str>, message: &str) -> Request<Body> {
    let mut request = request("POST").uri(path);
    if let Some(id) = id {
        request = request.header("mcp-session-id", id);
    }
    request.body(message.to_owned().into()).unwrap()
}

const WHOAMI: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami"}}"#;

fn text(answer: &Answer) -> Value {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["result"]["content"][0]["text"].clone()
}

/// The first example of the documentation, by the specification.
#[tokio::test]
async fn the_first_example_answers_as_the_specification_says() {
    let app = first::app();
    let opened = send(&app, message("/mcp", None, INITIALIZE)).await;
    let id = opened.id();
    let body: Value = serde_json::from_str(&opened.body).unwrap();
    assert_eq!(body["result"]["protocolVersion"], "2025-11-25");

    let told = send(&app, message("/mcp", Some(&id), INITIALIZED)).await;
    assert_eq!((told.status, &*told.body), (202, ""), "a notification");
    let response = r#"{"jsonrpc":"2.0","id":9,"result":{}}"#;
    let told = send(&app, message("/mcp", Some(&id), response)).await;
    assert_eq!((told.status, &*told.body), (202, ""), "a response");

    let who = send(&app, message("/mcp", Some(&id), WHOAMI)).await;
    assert_eq!(text(&who), json!(reference(&id).to_string()));
    let unknown = r#"{"jsonrpc":"2.0","id":"x","method":"prompts/list"}"#;
    let unknown = send(&app, message("/mcp", Some(&id), unknown)).await;
    let body: Value = serde_json::from_str(&unknown.body).unwrap();
    assert_eq!(
        (&body["id"], &body["error"]["code"]),
        (&json!("x"), &json!(-32601))
    );

    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let modern = with_header(
        message("/mcp", None, list),
        "mcp-protocol-version",
        "2026-07-28",
    );
    let modern = send(&app, modern).await;
    let body: Value = serde_json::from_str(&modern.body).unwrap();
    assert_eq!(
        (modern.status, &body["error"]["code"]),
        (400, &json!(-32022))
    );
    assert_eq!(body["error"]["data"]["supported"], json!(["2025-11-25"]));

    assert_eq!(send(&app, on(&id, "DELETE")).await.status, 204);
    let dead = send(&app, message("/mcp", Some(&id), WHOAMI)).await;
    dead.assert_not_found(RejectionKind::Unknown);
}

/// rmcp's client, which asks for the newest revision first.
#[tokio::test]
async fn a_real_client_uses_the_first_example() -> anyhow::Result<()> {
    use rmcp::{
        ServiceExt as _, model::CallToolRequestParams, transport::StreamableHttpClientTransport,
    };
    let address = support::sockets::serve(first::app()).await;
    let transport = StreamableHttpClientTransport::from_uri(format!("http://{address}/mcp"));
    let client = ().serve(transport).await?;
    let tools = client.list_all_tools().await?;
    assert_eq!(tools[0].name, "whoami");
    let result = client
        .call_tool(CallToolRequestParams::new("whoami"))
        .await?;
    let who = &result.content[0].as_text().expect("a text").text;
    assert_eq!(who.len(), 43);
    client.cancel().await?;
    Ok(())
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_keeps_the_contract() {
    let store = std::sync::Arc::new(own_store::MyStore::default());
    mcp_session_layer::conformance::all(&store, tokio::time::sleep).await;
}

#[tokio::test]
async fn services_share_a_store_and_no_session() {
    let app = several::app();
    let opened = send(&app, message("/notes/mcp", None, INITIALIZE)).await;
    let id = opened.id();
    let here = send(&app, message("/notes/mcp", Some(&id), WHOAMI)).await;
    assert_eq!(text(&here), json!(reference(&id).to_string()));
    let there = send(&app, message("/files/mcp", Some(&id), WHOAMI)).await;
    there.assert_not_found(RejectionKind::Unknown);
    let here = send(&app, message("/notes/mcp", Some(&id), WHOAMI)).await;
    assert_eq!(here.status, 200, "another service's business ends nothing");
}

#[tokio::test]
async fn hyper_serves_it_without_a_router() -> anyhow::Result<()> {
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(plain_hyper::serve(listener));
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let ask = async |id: Option<&str>, text| -> anyhow::Result<Response<_>> {
        let url = format!("http://{address}/mcp");
        let mut request = message(&url, id, text);
        request.headers_mut().remove("host");
        Ok(client.request(request).await?)
    };
    let opened = ask(None, INITIALIZE).await?;
    assert_eq!(opened.status(), 200);
    let id = opened.headers()["mcp-session-id"].to_str()?.to_owned();
    assert_eq!(ask(Some(&id), INITIALIZED).await?.status(), 202);
    assert_eq!(ask(Some(&id), WHOAMI).await?.status(), 200);
    assert_eq!(ask(Some("dead"), WHOAMI).await?.status(), 404);
    Ok(())
}
