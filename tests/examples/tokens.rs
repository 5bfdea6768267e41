//! Tokens of an issuer, and whose sessions they open.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "https://mcp.example.com";

/// Made for this test.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEAxNH1AUVsJIPub7ybs4HjaAxWricT2I+iC63pH3Ca9\n-----END PRIVATE KEY-----\n";

fn issuer() -> jwt::Issuer {
    let keys = json!({ "keys": [{
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "1",
        "x": "fA7W5A0unIqraGOdMpt_sVJCw7XMe6oPWjMBRAvAWpA",
    }]});
    jwt::Issuer {
        keys: serde_json::from_value(keys).unwrap(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
    }
}

/// A bearer token for `sub`; `number` tells one from the next.
fn token(issuer: &str, audience: &str, sub: &str, number: u64) -> String {
    let claims = json!({
        "iss": issuer, "aud": audience, "sub": sub, "jti": number,
        "exp": get_current_timestamp() + 3600,
    });
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("1".into());
    let key = EncodingKey::from_ed_pem(KEY.as_bytes()).unwrap();
    format!("Bearer {}", encode(&header, &claims, &key).unwrap())
}

#[tokio::test]
async fn a_refreshed_token_keeps_the_session_and_anothers_is_404() {
    let app = jwt::app(issuer());
    let with = |token: &str, id: Option<&str>, text| {
        let request = message("/mcp", id, text);
        with_header(request, "authorization", token)
    };
    let alice = token(ISSUER, AUDIENCE, "alice", 1);
    let id = send(&app, with(&alice, None, INITIALIZE)).await.id();
    let refreshed = token(ISSUER, AUDIENCE, "alice", 2);
    assert_ne!(alice, refreshed);
    for token in [&alice, &refreshed] {
        let answer = send(&app, with(token, Some(&id), WHOAMI)).await;
        assert_eq!(answer.status, 200, "{}", answer.wire());
    }
    let bob = token(ISSUER, AUDIENCE, "bob", 3);
    let answer = send(&app, with(&bob, Some(&id), WHOAMI)).await;
    answer.assert_not_found(RejectionKind::Unknown);
    let answer = send(&app, with(&refreshed, Some(&id), WHOAMI)).await;
    assert_eq!(answer.status, 200, "bob has changed nothing");
}

#[tokio::test]
async fn what_is_no_token_for_this_server_gets_a_challenge() {
    let app = jwt::app(issuer());
    let forged = {
        let token = token(ISSUER, AUDIENCE, "alice", 1);
        let (signed, _) = token.rsplit_once('.').unwrap();
        format!("{signed}.AAAA")
    };
    for token in [
        "Basic YWxpY2U6",
        "Bearer nonsense",
        &forged,
        &token("https://other.example.com", AUDIENCE, "alice", 1),
        &token(ISSUER, "https://other.example.com", "alice", 1),
    ] {
        let request = with_header(message("/mcp", None, INITIALIZE), "authorization", token);
        let answer = send(&app, request).await;
        assert_eq!(answer.status, 401, "{token}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
}
