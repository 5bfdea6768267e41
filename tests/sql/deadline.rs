//! Two nodes, and clients that ask in the very moment in which their time is up.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use mcp_session_layer::{McpSessionLayer, SessionId, SessionStore};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

/// Of those that are served, none is told within the next moments, by either node, that its session is over. `nodes` are
/// two ways to the same sessions.
pub(crate) async fn a_session_that_is_served_is_not_over(
    nodes: [impl SessionStore + Clone; 2],
    time: Duration,
) {
    let services = nodes.clone().map(|store| {
        McpSessionLayer::new(store)
            .with_idle_timeout(Duration::from_secs(1))
            .layer(service_fn(inner))
    });
    let until = Instant::now() + time;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (services, [store, _]) = (services.clone(), nodes.clone());
            tokio::spawn(async move {
                let mut served = 0;
                let mut round = client;
                while Instant::now() < until {
                    served += use_up(&services, &store, &mut round).await;
                }
                served
            })
        })
        .collect();
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(served > 0, "nobody was served at the deadline");
}

/// Uses one session for as long as it lives, always in the last moment, and says how often that went well.
async fn use_up<S>(services: &[S; 2], store: &impl SessionStore, round: &mut usize) -> usize
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let [here, there] = services;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let born = call(here, None, initialize).await;
    assert_eq!(born.status(), StatusCode::OK);
    let id = born.headers()["mcp-session-id"]
        .to_str()
        .unwrap()
        .to_owned();
    for service in services {
        if call(service, Some(&id), PING).await.status() != 200 {
            // A machine so slow that a second is over.
            return 0;
        }
    }
    let session: SessionId = id.parse().unwrap();
    let mut served = 0;
    loop {
        let Some(found) = store.load(&session).await.unwrap() else {
            return served;
        };
        *round += 1;
        // From 15 ms before to 15 ms after.
        let offset = Duration::from_millis((*round * 7 % 31) as u64);
        let at = Instant::now() + found.idle_left + offset;
        sleep_until(at - Duration::from_millis(15)).await;
        let service = if round.is_multiple_of(2) { here } else { there };
        let mut asked = Instant::now();
        if call(service, Some(&id), PING).await.status() != 200 {
            return served;
        }
        served += 1;
        for _ in 0..5 {
            for service in services {
                let before = std::mem::replace(&mut asked, Instant::now());
                let status = call(service, Some(&id), PING).await.status();
                if status != 200 {
                    // Unless its time may be up again by now.
                    let is_slow = before.elapsed() > Duration::from_millis(500);
                    assert!(is_slow, "served at the deadline, and over after it");
                    return served;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn call<S>(service: &S, id: Option<&str>, body: &'static str) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let mut request = Request::post("/mcp").header(CONTENT_TYPE, "application/json");
    if let Some(id) = id {
        request = request.header("mcp-session-id", id);
    }
    let request = request.body(body.into()).unwrap();
    let Ok(response) = service.clone().oneshot(request).await;
    response
}

async fn inner(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    let result = Body::from(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let mut response = Response::new(result);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
const CLIENTS: usize = 24;
