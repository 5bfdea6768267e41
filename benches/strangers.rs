//! What a request costs on a session that is somebody else's, and what on one that does not exist: it must not be told by
//! that which of the two it was.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::{
    CachedStore, McpSessionLayer, MemoryStore, Principal, SessionId, SessionStore, SigningKeys,
};
use tower::{Layer as _, Service, ServiceExt as _};

use crate::{
    drive::{Sending, ready},
    request::Template,
    services::{Asked, HOUR, Inner, Noop},
};

/// The layer over one store, by its name, and requests of alice's: on a session of bob's, or on none.
pub(crate) async fn prepare(service: &str, request: &str, requests: usize) -> Sending {
    let inner = Inner { json: false };
    let asked = || Asked(MemoryStore::new());
    match service {
        "noop" => {
            let noop = Noop {
                inner,
                session: None,
            };
            let mut template = Template::new(request, &[]);
            template.expected = http::StatusCode::OK;
            template.name_sessions("mcp-session-id", [SessionId::issue().expose()]);
            ready(noop, template, requests).await
        }
        "memory" => ask(layer(MemoryStore::new()), request, requests).await,
        "claims" => {
            let layer = layer(MemoryStore::new()).with_claim_on_login();
            ask(layer, request, requests).await
        }
        "signed" => {
            let layer = layer(MemoryStore::new()).with_signed_ids(SigningKeys::new([1; 32]));
            ask(layer, request, requests).await
        }
        "async" => ask(layer(asked()), request, requests).await,
        // From its memory.
        "cached" => ask(layer(cached(asked(), HOUR)), request, requests).await,
        // From what it has to ask for.
        "uncached" => ask(layer(cached(asked(), Duration::ZERO)), request, requests).await,
        _ => panic!("no such service: {service}"),
    }
}

fn cached(store: Asked, staleness: Duration) -> Arc<CachedStore<Asked>> {
    Arc::new(CachedStore::new(store, staleness))
}

fn layer(store: impl SessionStore) -> McpSessionLayer {
    McpSessionLayer::new(store)
        .with_paths(["/mcp"])
        .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()))
}

async fn ask(layer: McpSessionLayer, request: &str, requests: usize) -> Sending {
    let service = layer.layer(Inner { json: true });
    let mut template = Template::new(request, &[]);
    // Its owner uses it, so that whoever remembers something remembers it.
    let bobs = open(&service).await;
    let id = match request {
        "foreign" => bobs,
        // As long, and signed as well if that is.
        _ => {
            let made_up = SessionId::issue();
            let tag = bobs.split_once('.').map(|_| format!(".{}", "A".repeat(43)));
            format!("{}{}", made_up.expose(), tag.unwrap_or_default())
        }
    };
    template.name_sessions("mcp-session-id", [id]);
    ready(service, template, requests).await
}

/// A session of bob's.
async fn open<S>(service: &S) -> String
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let bob = Principal::issued("https://login.example", "bob");
    let mut initialize = Template::new("initialize", &[]);
    initialize.principal = Some(bob.clone());
    let Ok(answer) = service.clone().oneshot(initialize.request()).await;
    let id = answer.headers()["mcp-session-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    let mut live = Template::new("live", std::slice::from_ref(&id));
    live.principal = Some(bob);
    let Ok(answer) = service.clone().oneshot(live.request()).await;
    assert_eq!(answer.status(), live.expected);
    id
}
