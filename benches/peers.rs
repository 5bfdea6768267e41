//! Others on the same work: is the session of this request live, and let it live longer.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    body::Body,
    extract::State,
    middleware::{Next, from_fn_with_state},
    response::IntoResponse as _,
};
use http::{Request, Response, StatusCode};
use tower::{Layer as _, service_fn};
use tower_sessions::{
    Expiry, MemoryStore, Session, SessionManagerLayer, cookie::time::Duration as Days,
};

use crate::{
    request::Template,
    services::{HOUR, Served},
};

/// What one writes by hand: a map behind a lock, in an axum middleware.
#[derive(Clone)]
pub struct ByHand {
    sessions: Arc<RwLock<HashMap<String, Arc<Known>>>>,
    epoch: Instant,
}

pub struct Known {
    until: AtomicU64,
}

impl Known {
    /// When its time is up.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until.load(Relaxed)
    }
}

impl ByHand {
    #[must_use]
    pub fn new(ids: &[String]) -> Self {
        let known = |id: &String| {
            let until = AtomicU64::new(HOUR.as_secs());
            (id.clone(), Arc::new(Known { until }))
        };
        Self {
            sessions: Arc::new(RwLock::new(ids.iter().map(known).collect())),
            epoch: Instant::now(),
        }
    }

    /// Before this service.
    pub fn layer(self, inner: impl Served) -> impl Served {
        from_fn_with_state(self, check).layer(inner)
    }

    /// Finds a live session and lets it live longer.
    #[must_use]
    pub fn touch(&self, id: &str) -> Option<Arc<Known>> {
        let now = self.epoch.elapsed().as_secs();
        let sessions = self.sessions.read().expect("nobody panics with it");
        let known = sessions.get(id)?;
        if known.until.load(Relaxed) <= now {
            return None;
        }
        known.until.store(now + HOUR.as_secs(), Relaxed);
        Some(Arc::clone(known))
    }
}

async fn check(
    State(known): State<ByHand>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let id = request.headers().get("mcp-session-id");
    let found = id.and_then(|id| known.touch(id.to_str().ok()?));
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(session) => {
            request.extensions_mut().insert(session);
            next.run(request).await
        }
    }
}

/// tower-sessions, over its own store in memory. Whoever asks for the session first has it loaded; `saves` lets it
/// live longer after each request, as this layer does.
pub async fn tower_sessions(
    template: &mut Template,
    saves: bool,
    inner: impl Served,
) -> impl Served {
    let store = MemoryStore::default();
    let expiry = Expiry::OnInactivity(Days::hours(1));
    if template.expected == StatusCode::OK {
        let session = Session::new(None, Arc::new(store.clone()), Some(expiry));
        session.insert(USER, 1).await.expect("serializes");
        session.save().await.expect("saves");
        let id = session.id().expect("was saved");
        template.name_sessions("cookie", [format!("id={id}")]);
    } else {
        let unknown = tower_sessions::session::Id::default();
        template.name_sessions("cookie", [format!("id={unknown}")]);
    }
    let sessions = SessionManagerLayer::new(store)
        .with_always_save(saves)
        .with_expiry(expiry);
    sessions.layer(service_fn(move |request: Request<Body>| {
        let mut inner = inner.clone();
        async move {
            let session = request.extensions().get::<Session>().expect("is there");
            match session.get::<u64>(USER).await {
                Ok(Some(_)) => inner.call(request).await,
                _ => Ok::<_, Infallible>(StatusCode::NOT_FOUND.into_response()),
            }
        }
    }))
}

const USER: &str = "user";
