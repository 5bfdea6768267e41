//! Bearer tokens, and whose they are. Outside the session layer, which asks whose session it is.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use clap::Args;
use mcp_session_layer::Principal;

#[derive(Args)]
pub(crate) struct AuthOptions {
    /// A bearer token and whose it is, as in TOKEN=PRINCIPAL. Repeatable. With it, a token is required.
    #[arg(long, value_parser = token)]
    auth: Vec<(String, Principal)>,
}

pub(crate) type Tokens = Arc<HashMap<String, Principal>>;

impl AuthOptions {
    pub(crate) fn tokens(&self) -> Tokens {
        Arc::new(self.auth.iter().cloned().collect())
    }
}

fn token(text: &str) -> Result<(String, Principal), String> {
    let (token, principal) = text.split_once('=').ok_or("expected TOKEN=PRINCIPAL")?;
    Ok((token.to_owned(), Principal::new(principal)))
}

/// Says who the caller is, or answers 401.
pub(crate) async fn authenticate(
    State(tokens): State<Tokens>,
    mut request: Request,
    next: Next,
) -> Response {
    if tokens.is_empty() {
        return next.run(request).await;
    }
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(principal) = token.and_then(|token| tokens.get(token)).cloned() else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}
