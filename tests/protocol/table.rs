//! The decision table, every cell of it: what a request is × the revision it claims × the id it brings.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request};
use mcp_session_layer::{Issuer, MemoryStore, Principal, RejectionKind, SessionStore as _};
use tokio::time::advance;
use tower::Layer as _;

use crate::{
    inner::{Inner, byte_by_byte},
    setup::{over, plant},
    support::{
        answers::{NO_SESSION, NOT_FOUND, RESULT, lines, send},
        requests::{self, INITIALIZE, PING},
        sessions::{idle_left, is_live, owner, session_id},
    },
};

const RESPONSE: &str = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
const MISSING_WITH_ID: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32600,"message":"Bad Request: Mcp-Session-Id header is required"}}"#;
/// `{"jsonrpc":"2.0","id":1,"method":"initialize"}`
const GZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x2a\xce\xcf\x2b\x2a\x48\x56\xb2\x52\x32\xd2\x33\x50\xd2\x51\xca\x4c\x51\xb2\
    \x32\xd4\x51\xca\x4d\x2d\xc9\xc8\x07\x32\x95\x32\xf3\x32\x4b\x32\x13\x73\x32\xab\x52\x95\x6a\x01\xb9\xec\x35\xce\x2e\x00\x00\x00";

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Post(Content),
    Other(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Initialize,
    InitializeByteByByte,
    OtherRequest,
    OtherRequestByteByByte,
    Notification,
    InitializeNotification,
    Response,
    Array,
    Broken,
    Gzip,
    NoBody,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Era {
    Modern,
    Legacy,
    Unknown,
    /// Two lines.
    Doubled,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Id {
    Absent,
    Empty,
    Blank,
    Live,
    Ended,
    Expired,
    NeverIssued,
    SomebodyElses,
    WithSpace,
    WithTab,
    NotAscii,
    TooLong,
    SameTwice,
    TwoDifferent,
}

/// What has to become of a request.
#[derive(Debug, PartialEq)]
enum Fate {
    /// The inner service gets it, with these session ids and with or without `Last-Event-ID`.
    Passes {
        ids: Vec<String>,
        last_event_id: bool,
        session: bool,
    },
    /// As `Passes` without an id, and a session is created.
    Creates,
    Refused(RejectionKind, u16, &'static str),
}

const EOF_IN_OBJECT: &str =
    "Request body is not valid JSON: EOF while parsing an object at line 1 column 45";
const NO_VALUE: &str = "Request body is not valid JSON: expected value at line 1 column 1";
const EMPTY: &str = "Request body is not valid JSON: EOF while parsing a value at line 1 column 0";

use Content::*;
use Id::*;
use What::*;

const WHATS: [What; 17] = [
    Post(Initialize),
    Post(InitializeByteByByte),
    Post(OtherRequest),
    Post(OtherRequestByteByByte),
    Post(Notification),
    Post(InitializeNotification),
    Post(Response),
    Post(Array),
    Post(Broken),
    Post(Gzip),
    Post(NoBody),
    Other("GET"),
    Other("HEAD"),
    Other("DELETE"),
    Other("OPTIONS"),
    Other("PUT"),
    Other("BREW"),
];

const VERSIONS: [(Era, &[&str]); 15] = [
    (Era::Modern, &["2026-07-28"]),
    (Era::Modern, &["2026-07-29"]),
    (Era::Modern, &["2031-01-01"]),
    (Era::Legacy, &[]),
    (Era::Legacy, &["2025-03-26"]),
    (Era::Legacy, &["2025-06-18"]),
    (Era::Legacy, &["2025-11-25"]),
    (Era::Legacy, &["1999-01-01"]),
    (Era::Legacy, &["2026-07-27"]),
    (Era::Unknown, &["v999.0.0"]),
    (Era::Unknown, &["banana"]),
    (Era::Unknown, &[""]),
    (Era::Doubled, &["2026-07-28", "2026-07-28"]),
    (Era::Doubled, &["2025-11-25", "2026-07-28"]),
    (Era::Doubled, &["2025-11-25", "2025-11-25"]),
];

const IDS: [Id; 14] = [
    Absent,
    Empty,
    Blank,
    Live,
    Ended,
    Expired,
    NeverIssued,
    SomebodyElses,
    WithSpace,
    WithTab,
    NotAscii,
    TooLong,
    SameTwice,
    TwoDifferent,
];

/// The table as it is specified.
fn fate(what: What, era: Era, id: Id) -> Fate {
    let passes = Fate::Passes {
        ids: vec![],
        last_event_id: false,
        session: false,
    };
    let missing = RejectionKind::MissingSession;
    let not_json = |text| Fate::Refused(RejectionKind::BodyNotJson, 400, text);
    match (era, id) {
        _ if what == Other("OPTIONS") => passes,
        (Era::Doubled, _) => Fate::Refused(
            RejectionKind::DuplicateVersionHeader,
            400,
            "More than one MCP-Protocol-Version header",
        ),
        (Era::Modern, _) => passes,
        (Era::Unknown, Absent | Empty | Blank) => passes,
        (Era::Legacy, Absent | Empty | Blank) => match what {
            Post(Initialize | InitializeByteByByte) => Fate::Creates,
            Post(OtherRequest | OtherRequestByteByByte) => {
                Fate::Refused(missing, 400, MISSING_WITH_ID)
            }
            Post(Broken) => not_json(EOF_IN_OBJECT),
            Post(Gzip) => not_json(NO_VALUE),
            Post(NoBody) => not_json(EMPTY),
            _ => Fate::Refused(missing, 400, NO_SESSION),
        },
        (_, SameTwice | TwoDifferent) => Fate::Refused(
            RejectionKind::DuplicateSessionHeader,
            400,
            "More than one Mcp-Session-Id header",
        ),
        (_, Live) => Fate::Passes {
            ids: vec!["live".into()],
            last_event_id: true,
            session: true,
        },
        (_, Ended | Expired | NeverIssued | SomebodyElses) => {
            Fate::Refused(RejectionKind::Unknown, 404, NOT_FOUND)
        }
        (_, WithSpace | WithTab | NotAscii | TooLong) => {
            Fate::Refused(RejectionKind::Malformed, 404, NOT_FOUND)
        }
    }
}

impl Content {
    fn bytes(self) -> &'static [u8] {
        match self {
            Initialize | InitializeByteByByte => INITIALIZE.as_bytes(),
            OtherRequest | OtherRequestByteByByte => PING.as_bytes(),
            Notification => br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            InitializeNotification => br#"{"jsonrpc":"2.0","method":"initialize","params":{}}"#,
            Response => RESPONSE.as_bytes(),
            Array => br#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#,
            Broken => br#"{"jsonrpc":"2.0","id":1,"method":"initialize""#,
            Gzip => GZIPPED,
            NoBody => b"",
        }
    }
}

impl Id {
    fn lines(self) -> Vec<Vec<u8>> {
        let lines: &[&[u8]] = match self {
            Absent => &[],
            Empty => &[b""],
            Blank => &[b" "],
            Live => &[b"live"],
            Ended => &[b"ended"],
            Expired => &[b"expired"],
            NeverIssued => &[b"never"],
            SomebodyElses => &[b"bobs"],
            WithSpace => &[b"live x"],
            WithTab => &[b"live\t"],
            NotAscii => &[b"liv\xe9"],
            TooLong => return vec![vec![b'x'; 8 << 10]],
            SameTwice => &[b"live", b"live"],
            TwoDifferent => &[b"live", b"never"],
        };
        lines.iter().map(|line| line.to_vec()).collect()
    }
}

fn request(what: What, versions: &[&str], id: Id) -> Request<Body> {
    let (method, body) = match what {
        Post(content @ (InitializeByteByByte | OtherRequestByteByByte)) => {
            ("POST", byte_by_byte(content.bytes()))
        }
        Post(content) => ("POST", Body::from(content.bytes())),
        Other(method) => (method, Body::empty()),
    };
    let mut builder = requests::request(method).header("last-event-id", "5");
    if what == Post(Gzip) {
        builder = builder.header("content-encoding", "gzip");
    }
    for version in versions {
        builder = builder.header("mcp-protocol-version", *version);
    }
    for line in id.lines() {
        builder = builder.header("mcp-session-id", HeaderValue::from_bytes(&line).unwrap());
    }
    builder.body(body).unwrap()
}

/// A store with a session of each kind that an id can name; one second has passed since.
async fn peopled() -> MemoryStore {
    let store = MemoryStore::new();
    plant(&store, "expired", owner(Some("alice")), Issuer::Inner).await;
    advance(Duration::from_secs(900)).await;
    plant(&store, "live", owner(Some("alice")), Issuer::Inner).await;
    plant(&store, "bobs", owner(Some("bob")), Issuer::Inner).await;
    plant(&store, "ended", owner(Some("alice")), Issuer::Inner).await;
    let reason = mcp_session_layer::store::EndReason::Deleted;
    assert!(store.delete(&session_id("ended"), reason).await.unwrap());
    advance(Duration::from_secs(1)).await;
    store
}

async fn check(what: What, era: Era, versions: &[&str], brought: Id) -> Result<(), String> {
    let store = peopled().await;
    let inner = Inner::silent();
    let service = over(&store)
        .with_principal(|_| Ok(Some(Principal::new("alice"))))
        .layer(inner.clone());

    let answer = send(&service, request(what, versions, brought)).await;
    let mut calls = inner.calls();

    let expected = fate(what, era, brought);
    let actual = match (calls.pop(), answer.rejection.as_ref()) {
        (Some(call), None) => {
            let sent = match what {
                Post(content) => content.bytes(),
                Other(_) => b"",
            };
            let is_relayed = call.body == sent && answer.status == 200 && answer.body == RESULT;
            if !is_relayed || !calls.is_empty() {
                return Err(format!("not as it was sent: {call:?}\n{}", answer.wire()));
            }
            let passes = Fate::Passes {
                ids: lines(&call.headers, "mcp-session-id"),
                last_event_id: call.headers.contains_key("last-event-id"),
                session: call.session.is_some(),
            };
            let without_session = Fate::Passes {
                ids: vec![],
                last_event_id: false,
                session: false,
            };
            match &answer.ids()[..] {
                [] => passes,
                [fresh] if passes == without_session && is_live(&store, fresh).await => {
                    Fate::Creates
                }
                _ => return Err(format!("an id too many:\n{}", answer.wire())),
            }
        }
        (None, Some(rejection)) => {
            let Fate::Refused(_, _, body) = expected else {
                return Err(format!("refused: {rejection:?}"));
            };
            if answer.body != body || !answer.ids().is_empty() {
                return Err(answer.wire());
            }
            Fate::Refused(rejection.kind(), answer.status, body)
        }
        (called, rejection) => return Err(format!("{called:?} and {rejection:?}")),
    };
    if actual != expected {
        return Err(format!("{actual:?}, not {expected:?}"));
    }

    // Only a request on a session extends it, only a DELETE on it ends it, and bob's is only bob's.
    let on_session = matches!(&actual, Fate::Passes { session: true, .. });
    let expected = match (on_session, what) {
        (true, Other("DELETE")) => None,
        (true, _) => Some(Duration::from_secs(3600)),
        (false, _) => Some(Duration::from_secs(899)),
    };
    let live = idle_left(&store, "live").await;
    let bobs = idle_left(&store, "bobs").await;
    if live != expected || bobs != Some(Duration::from_secs(899)) {
        return Err(format!("left in the store: {live:?}, of bob's {bobs:?}"));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_cell() {
    let mut failed = Vec::new();
    for what in WHATS {
        for (era, versions) in VERSIONS {
            for brought in IDS {
                if let Err(why) = check(what, era, versions, brought).await {
                    failed.push(format!(
                        "{what:?}, {era:?} {versions:?}, {brought:?}: {why}"
                    ));
                }
            }
        }
    }
    let shown = failed.len().min(20);
    assert!(
        failed.is_empty(),
        "{} cells:\n{}",
        failed.len(),
        failed[..shown].join("\n")
    );
}
