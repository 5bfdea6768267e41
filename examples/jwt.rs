//! Bearer tokens decide whose session it is: JWTs, checked with the key set of whoever issues them.
//!
//! ```sh
//! KEYS=jwks.json ISSUER=https://login.example.com AUDIENCE=https://mcp.example.com cargo run --example jwt
//! ```
//!
//! A session belongs to the token's issuer and subject. So a refreshed token keeps the session, and with anybody else's
//! token it is 404.

#[path = "first.rs"]
#[allow(dead_code)]
mod first;
#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use std::{env, fs, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal};
use serde::Deserialize;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let var =
        |name| env::var(name).with_context(|| format!("set {name}, as in the head of this file"));
    let keys = fs::read(var("KEYS")?).context("KEYS names no file that can be read")?;
    let issuer = Issuer {
        // To be fetched from the issuer, and again when a token names a key that is not there.
        keys: serde_json::from_slice(&keys).context("KEYS is no JSON Web Key Set")?,
        issuer: var("ISSUER")?,
        audience: var("AUDIENCE")?,
    };
    let listener = listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app(issuer)).await?;
    Ok(())
}

pub(crate) fn app(issuer: Issuer) -> Router {
    let sessions = McpSessionLayer::new(MemoryStore::new())
        .with_paths(["/mcp"])
        .with_legacy_only(["2025-11-25"])
        // An error, not `None`: if authentication is missing in front, nobody is served.
        .with_principal(|parts| {
            let claims = parts
                .extensions
                .get::<Claims>()
                .ok_or("no authentication in front")?;
            Ok(Some(Principal::issued(&claims.iss, &claims.sub)))
        });
    Router::new()
        .route("/mcp", post(first::mcp))
        .layer(sessions)
        // Outside the session layer, which asks whose session it is.
        .layer(from_fn_with_state(Arc::new(issuer), authenticate))
}

/// Whose tokens are good here.
pub(crate) struct Issuer {
    pub(crate) keys: JwkSet,
    pub(crate) issuer: String,
    /// This server. A token for another one is not good here (2025-11-25, authorization, token handling).
    pub(crate) audience: String,
}

#[derive(Clone, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
}

impl Issuer {
    fn claims(&self, headers: &HeaderMap) -> Option<Claims> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = token.strip_prefix("Bearer ")?;
        let key = self.keys.find(&decode_header(token).ok()?.kid?)?;
        // The algorithm is the server's choice, never the token's.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = DecodingKey::from_jwk(key).ok()?;
        Some(decode(token, &key, &validation).ok()?.claims)
    }
}

async fn authenticate(
    State(issuer): State<Arc<Issuer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(claims) = issuer.claims(request.headers()) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    request.extensions_mut().insert(claims);
    next.run(request).await
}
