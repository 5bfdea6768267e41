//! Two nodes on one server: what is done on one is done on the other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use mcp_session_layer::{McpSessionLayer, Principal, testing::McpServer};
use tokio::{sync::Semaphore, time::timeout};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{
    layer::user_header,
    requests::{as_user, get, initialize, post},
    server::Server,
};

async fn layer(server: &Server) -> McpSessionLayer {
    McpSessionLayer::new(server.store().await)
        .with_claim_on_login()
        .with_principal(user_header)
}

/// What was opened by nobody in particular is not for the one who has logged in, wherever that was.
#[tokio::test]
async fn a_login_on_one_node_ends_the_streams_of_the_other() {
    let Some(server) = Server::start("") else {
        return;
    };
    let inner = McpServer::without_sessions();
    let (here, there) = (layer(&server).await, layer(&server).await);
    let (here, there) = (here.layer(inner.clone()), there.layer(inner));
    let created = here.clone().oneshot(initialize()).await.unwrap();
    let id = created.headers()["mcp-session-id"].to_str().unwrap();
    let opened = there.clone().oneshot(get(id));
    let mut stream = opened.await.unwrap().into_body();
    // Until its node hears.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(stream.frame().now_or_never().is_none(), "it is silent");

    let answer = here.oneshot(as_user(post(id), "alice")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let ends = timeout(SOON, stream.frame()).await;
    assert!(ends.expect("it ends").is_none());
    for (call, status) in [
        (post(id), 404),
        (as_user(post(id), "bob"), 404),
        (as_user(post(id), "alice"), 200),
    ] {
        let user = call.headers().get("x-user").cloned();
        let answer = there.clone().oneshot(call).await.unwrap();
        assert_eq!(answer.status(), status, "{user:?}");
    }
}

/// All sessions of a principal are ended on one node, while the other creates one for it.
#[tokio::test]
async fn an_end_of_all_is_the_end_of_what_another_node_is_creating() {
    let Some(server) = Server::start("") else {
        return;
    };
    let (here, there) = (layer(&server).await, layer(&server).await);
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let inner = service_fn({
        let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
        move |_: Request<Body>| {
            let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
            async move {
                entered.add_permits(1);
                gate.acquire().await.expect("is open").forget();
                let answer = Body::from(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
                let mut answer = Response::new(answer);
                let json = HeaderValue::from_static("application/json");
                answer.headers_mut().insert("content-type", json);
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let service = there.layer(inner);
    let alice = Principal::new("alice");
    for (is_ended, status) in [(true, 503), (false, 200)] {
        let creation = service.clone().oneshot(as_user(initialize(), "alice"));
        let creation = tokio::spawn(creation);
        entered.acquire().await.unwrap().forget();
        if is_ended {
            let ended = here.sessions().end_of(Some(&alice)).await;
            assert_eq!(ended.unwrap(), 0, "it is not there yet");
        }
        gate.add_permits(1);
        let created = creation.await.unwrap().unwrap();
        assert_eq!(created.status(), status);
        assert_eq!(created.headers().contains_key("mcp-session-id"), !is_ended);
    }
    assert_eq!(here.sessions().count().await.unwrap(), 1);
}

const SOON: Duration = Duration::from_secs(10);
