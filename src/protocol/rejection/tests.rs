//! Every kind of refusal to the byte, and what a custom rendering cannot change.

use super::RejectionKind::*;
use super::*;
use http::header::SET_COOKIE;

const ALL: [RejectionKind; 23] = [
    MissingSession,
    DuplicateSessionHeader,
    DuplicateVersionHeader,
    UnsupportedProtocolVersion,
    Malformed,
    Forged,
    Unknown,
    Ended,
    InnerGone,
    AlreadyInitialized,
    BodyTooLarge,
    BodyTimeout,
    BodyUnreadable,
    BodyNotJson,
    StoreUnavailable,
    Full,
    Revoked,
    Draining,
    Busy,
    TooManyCreations,
    PrincipalFailed,
    ValuesFailed,
    InvalidInnerId,
];

/// Dashboards and alerts are built on them.
#[test]
fn every_kind_has_a_name_that_stays() {
    let names = [
        "missing_session",
        "duplicate_session_header",
        "duplicate_version_header",
        "unsupported_protocol_version",
        "malformed",
        "forged",
        "unknown",
        "ended",
        "inner_gone",
        "already_initialized",
        "body_too_large",
        "body_timeout",
        "body_unreadable",
        "body_not_json",
        "store_unavailable",
        "full",
        "revoked",
        "draining",
        "busy",
        "too_many_creations",
        "principal_failed",
        "values_failed",
        "invalid_inner_id",
    ];
    assert_eq!(ALL.map(RejectionKind::as_str), names);
    assert_eq!(MissingSession.to_string(), names[0]);
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// Status line, headers and body as one text, in the order in which they would be written.
fn wire(response: Response<Body>) -> String {
    let (head, body) = response.into_parts();
    let body = tokio_test::block_on(axum::body::to_bytes(body, usize::MAX)).unwrap();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    let body = str::from_utf8(&body).unwrap();
    format!(
        "{}\n{}\n{body}",
        head.status.as_u16(),
        headers.collect::<String>()
    )
}

fn rendered(rejection: Rejection) -> String {
    wire(rejection.into_response())
}

fn text(status: u16, body: &str) -> String {
    format!("{status}\ncontent-type: text/plain; charset=utf-8\ncache-control: no-store\n\n{body}")
}

fn json(status: u16, body: &str) -> String {
    format!("{status}\ncontent-type: application/json\ncache-control: no-store\n\n{body}")
}

#[test]
fn every_kind_to_the_byte() {
    let unavailable = "503\ncontent-type: text/plain; charset=utf-8\nretry-after: 1\ncache-control: no-store\n\n\
                       Service temporarily unavailable";
    for kind in ALL {
        let expected = match kind {
            MissingSession => text(400, "Mcp-Session-Id header is required"),
            DuplicateSessionHeader => text(400, "More than one Mcp-Session-Id header"),
            DuplicateVersionHeader => text(400, "More than one MCP-Protocol-Version header"),
            UnsupportedProtocolVersion => text(400, "Unsupported protocol version"),
            Malformed | Forged | Unknown | Ended | InnerGone => json(
                404,
                r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#,
            ),
            AlreadyInitialized => text(400, "Session is already initialized"),
            BodyTooLarge => text(413, "Request body too large"),
            BodyTimeout => text(408, "Request body too slow"),
            BodyUnreadable => text(400, "Request body could not be read"),
            BodyNotJson => text(400, "Request body is not valid JSON"),
            StoreUnavailable | Full | Revoked | Draining | Busy => unavailable.to_owned(),
            TooManyCreations => "429\ncontent-type: text/plain; charset=utf-8\nretry-after: 1\ncache-control: no-store\n\n\
                                 Too many new sessions"
                .to_owned(),
            PrincipalFailed | ValuesFailed | InvalidInnerId => text(500, "Internal server error"),
        };
        assert_eq!(rendered(Rejection::new(kind)), expected, "{kind:?}");
    }
}

/// Nothing that is known of the request may tell one 404 from another.
#[test]
fn all_404_are_one_answer() {
    let expected = rendered(Rejection::new(Unknown));
    for kind in [Malformed, Forged, Unknown, Ended, InnerGone] {
        let rejection = Rejection::new(kind).with_request_id(raw("7"));
        assert_eq!(rendered(rejection), expected, "{kind:?}");
    }
}

#[test]
fn a_request_without_a_session_gets_its_id_back_as_it_was_sent() {
    for id in [
        "7",
        "-0",
        "1.50",
        "1e400",
        "12345678901234567890123",
        r#""a""#,
        r#""\u0041\/é""#,
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}}}}"#
        );
        let rejection = Rejection::new(MissingSession).with_request_id(raw(id));
        assert_eq!(rejection.request_id(), Some(id));
        assert_eq!(rendered(rejection), json(400, &body));
    }
}

/// "Hangs": a JSON-RPC error without the request's id at a status other than 404.
#[test]
fn no_other_answer_is_json() {
    for kind in ALL.into_iter().filter(|kind| {
        !matches!(
            kind,
            MissingSession | AlreadyInitialized | Malformed | Forged | Unknown | Ended | InnerGone
        )
    }) {
        let response = Rejection::new(kind)
            .with_request_id(raw("7"))
            .into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], TEXT, "{kind:?}");
    }
}

#[test]
fn an_unsupported_version_is_named_with_the_supported_ones() {
    let requested = "v\"9\u{fffd}".to_owned();
    let rejection = Rejection::unsupported_version(requested, &["2025-06-18", "2025-11-25"]);
    assert_eq!(rejection.requested_version(), Some("v\"9\u{fffd}"));
    assert_eq!(rejection.supported_versions(), ["2025-06-18", "2025-11-25"]);
    assert_eq!(
        rendered(rejection.clone()),
        text(
            400,
            "Unsupported protocol version, supported: 2025-06-18, 2025-11-25"
        )
    );

    let response = rejection.with_request_id(raw(r#""x""#)).into_response();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()[CONTENT_TYPE]
        ),
        (400, &JSON)
    );
    let body =
        tokio_test::block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
        serde_json::json!({
            "jsonrpc": "2.0",
            "id": "x",
            "error": {
                "code": -32022,
                "message": "Unsupported protocol version",
                "data": { "supported": ["2025-06-18", "2025-11-25"], "requested": "v\"9\u{fffd}" },
            },
        })
    );
}

#[test]
fn what_is_wrong_with_a_body_is_said() {
    assert_eq!(
        rendered(Rejection::body_too_large(65536)),
        text(
            413,
            "Request body too large: the Mcp-Session-Id header is missing, and without it only an initialize request \
             of at most 65536 bytes is accepted"
        )
    );
    assert_eq!(
        rendered(Rejection::body_not_json("trailing characters")),
        text(400, "Request body is not valid JSON: trailing characters")
    );
}

#[test]
fn when_to_try_again_is_said_only_at_503_and_429() {
    for kind in ALL {
        let rejection = Rejection::new(kind);
        let passes = matches!(rejection.status().as_u16(), 503 | 429);
        assert_eq!(rejection.retry_after().is_some(), passes, "{kind:?}");
    }
}

#[test]
fn every_refusal_carries_its_reason_outward() {
    for kind in ALL {
        let response = respond(Rejection::new(kind), None, Spare::default());
        let carried = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(
            (carried.kind(), carried.status()),
            (kind, response.status())
        );
    }
}

#[test]
fn a_custom_rendering_decides_all_but_what_must_hold() {
    let renderer: Renderer = Arc::new(|rejection| {
        Response::builder()
            .status(StatusCode::GONE)
            .header(CACHE_CONTROL, "public")
            .header(CACHE_CONTROL, "max-age=9")
            .header("Mcp-Session-Id", "a")
            .header("Mcp-Session-Id", "b")
            .header(SET_COOKIE, "c")
            .body(Body::from(format!("{:?}", rejection.kind())))
            .unwrap()
    });
    let response = respond(Rejection::new(Ended), Some(&renderer), Spare::default());
    assert_eq!(
        response.extensions().get::<Rejection>().unwrap().kind(),
        Ended
    );
    assert_eq!(
        wire(response),
        "410\ncache-control: no-store\nset-cookie: c\n\nEnded"
    );
}

#[test]
fn the_time_to_wait_is_in_whole_seconds_and_not_too_short() {
    for (wait, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_001, 60)] {
        for kind in [Full, TooManyCreations] {
            let rejection = Rejection::new(kind).with_retry_in(Duration::from_millis(wait));
            assert_eq!(rejection.retry_after(), Some(Duration::from_secs(seconds)));
            let response = rejection.into_response();
            assert_eq!(
                response.headers()[RETRY_AFTER],
                seconds.to_string(),
                "{wait}"
            );
        }
    }
}
