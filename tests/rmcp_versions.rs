//! Clients of rmcp's server that choose their revision in odd ways: what works without the layer works through it.
#![cfg(feature = "rmcp")]

use std::net::SocketAddr;

use axum::Router;
use mcp_session_layer::MemoryStore;
use rmcp::{
    model::ProtocolVersion,
    service::{ClientLifecycleMode, ClientServiceExt as _},
    transport::StreamableHttpClientTransport,
};
use tower::Layer as _;

use support::{
    answers::{Answer, send},
    layer::layer,
    requests::{INITIALIZE, INITIALIZED, PING, post, request, with_header},
    rmcp_server::rmcp_server,
    sockets::serve,
};

mod support;

fn bare() -> Router {
    let (mcp, _) = rmcp_server(Default::default());
    Router::new().route_service("/mcp", mcp)
}

fn layered() -> Router {
    let (mcp, _) = rmcp_server(Default::default());
    Router::new().route_service("/mcp", layer(MemoryStore::new()).layer(mcp))
}

async fn initialize(app: &Router, version: &str, method: Option<&str>) -> Answer {
    let body = INITIALIZE.replace("2025-06-18", version);
    let mut request = request("POST").body(body.into()).unwrap();
    request = with_header(request, "mcp-protocol-version", version);
    if let Some(method) = method {
        request = with_header(request, "mcp-method", method);
    }
    send(app, request).await
}

/// An `initialize` asks for a session whatever the header says.
#[tokio::test]
async fn an_initialize_under_a_modern_header_leads_to_a_session() {
    for (version, method) in [
        ("2026-07-28", Some("initialize")),
        ("2026-07-28", None),
        ("2025-06-18", None),
        ("2025-06-18", Some("initialize")),
    ] {
        let expected = initialize(&bare(), version, method).await;
        let app = layered();
        let answer = initialize(&app, version, method).await;
        assert_eq!(answer.status, expected.status, "{version} {method:?}");
        // The revision requires this header (2026-07-28, Streamable HTTP); without it nothing says that the request has to be
        // read, though rmcp serves it.
        if (version, method) == ("2026-07-28", None) {
            assert!(answer.ids().is_empty());
            continue;
        }
        assert_eq!(expected.ids().len(), 1, "{}", expected.wire());
        let id = &answer.id();
        let mut initialized = post(id);
        *initialized.body_mut() = INITIALIZED.into();
        assert_eq!(send(&app, initialized).await.status, 202);
        let pong = send(&app, post(id)).await;
        assert_eq!(pong.status, 200);
        assert!(pong.body.contains(r#""id":7,"result":{}"#), "{}", pong.body);
    }
}

async fn discovers(addr: SocketAddr, versions: &[ProtocolVersion]) -> Result<String, String> {
    let transport = StreamableHttpClientTransport::from_uri(format!("http://{addr}/mcp"));
    let mode = ClientLifecycleMode::Discover {
        preferred_versions: versions.to_vec(),
    };
    let client = ().serve_with_lifecycle(transport, mode).await;
    let client = client.map_err(|error| error.to_string())?;
    let tools = client
        .list_tools(None)
        .await
        .map_err(|error| error.to_string());
    client.cancel().await.map_err(|error| error.to_string())?;
    Ok(format!("{tools:?}"))
}

#[tokio::test]
async fn a_client_that_only_discovers_can_start() {
    let (bare, layered) = (serve(bare()).await, serve(layered()).await);
    for versions in [
        &[ProtocolVersion::V_2026_07_28][..],
        &[ProtocolVersion::V_2025_11_25],
        &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25],
        &[ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28],
    ] {
        let expected = discovers(bare, versions).await;
        println!("{versions:?}: {expected:?}");
        assert!(expected.is_ok(), "{expected:?}");
        assert_eq!(discovers(layered, versions).await, expected);
    }
}

/// The inner service owes these their answers, and gives them.
#[tokio::test]
async fn a_claim_is_answered_as_without_the_layer() {
    let (bare, layered) = (bare(), layered());
    for claim in [
        r#""2026-07-28""#,
        r#""2025-11-25""#,
        r#""1900-01-01""#,
        r#""banana""#,
        "7",
        "null",
    ] {
        for version in [None, Some("2025-11-25"), Some("2026-07-28")] {
            let ask = async |app: &Router| {
                let body = PING.replace(
                    r#""ping""#,
                    &format!(
                        r#""server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{claim},"io.modelcontextprotocol/clientInfo":{{"name":"probe","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}"#
                    ),
                );
                let mut request = request("POST").body(body.into()).unwrap();
                if let Some(version) = version {
                    request = with_header(request, "mcp-protocol-version", version);
                    request = with_header(request, "mcp-method", "server/discover");
                }
                send(app, request).await
            };
            let (expected, answer) = (ask(&bare).await, ask(&layered).await);
            assert_eq!(
                answer.status,
                expected.status,
                "{claim} {version:?}: {}",
                answer.wire()
            );
            assert_eq!(answer.body, expected.body, "{claim} {version:?}");
        }
    }
}
