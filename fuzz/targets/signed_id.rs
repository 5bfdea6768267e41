//! Signed session ids: only what was issued to a caller opens its session, as it was issued and under keys that are known;
//! all else is refused without a question to the store.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/protocol/inner.rs"]
mod inner;
#[allow(dead_code)]
#[path = "../../tests/support"]
mod support {
    pub(crate) mod answers;
    pub(crate) mod layer;
    pub(crate) mod requests;
    pub(crate) mod sessions;
    pub(crate) mod store;
    pub(crate) mod time;
}

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, SystemTime},
};

use arbitrary::{Arbitrary, Unstructured};
use axum::body::Body;
use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{Scope, SigningKeys};
use tokio::runtime::Builder;
use tower::Layer as _;

use crate::{
    inner::{Inner, json, with_ids},
    support::{
        answers::{RESULT, send},
        layer::{SessionLayer, layer, user_header},
        requests::{as_user, initialize, post},
        store::TestStore,
    },
};

/// Two sessions are created on one node, and a request comes to another one.
#[derive(Debug, Arbitrary)]
struct Case {
    owner: Caller,
    neighbour: Caller,
    caller: Caller,
    /// The inner service's id, or nothing where the layer issues it.
    issued: Option<Vec<u8>>,
    is_issued_unsigned: bool,
    is_remote: bool,
    keys: Keys,
    accepts_unsigned: bool,
    claims: bool,
    is_other_scope: bool,
    wire: Wire,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Caller {
    Nobody,
    Empty,
    Alice,
    Bob,
}

#[derive(Debug, Arbitrary)]
enum Keys {
    Old,
    OldAndNew,
    NewAndOld,
    New,
}

/// What the request names: what was issued, altered or not, or anything.
#[derive(Debug, Arbitrary)]
enum Wire {
    Issued(Vec<Edit>),
    /// With the tag of the other session.
    Spliced(Vec<Edit>),
    Untagged(Vec<Edit>),
    Any(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Cut(u16),
    Skip(u16),
    Set(u16, u8),
    Insert(u16, u8),
    Repeat(u16),
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Of all there is, so that no input can have a tag in it that is right.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let mut old = [1; 32];
    old[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    runtime.block_on(check(&case, old, [2; 32]));
});

/// A session as its client knows it, and as everything inside does.
struct Issued {
    owner: Caller,
    wire: String,
    id: String,
}

async fn check(case: &Case, old: [u8; 32], new: [u8; 32]) {
    let store = match case.is_remote {
        true => TestStore::default().remote(),
        false => TestStore::default(),
    };
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let mut keys = SigningKeys::new(old);
    if case.is_issued_unsigned {
        keys = keys
            .insecure_accept_unsigned_until(in_an_hour)
            .sign_from(in_an_hour);
    }
    let issued = case.issued.as_deref().map(visible);
    let issued = issued.filter(|id| !id.is_empty());
    let mut sessions = Vec::new();
    for (owner, issued) in [(case.owner, issued), (case.neighbour, None)] {
        let inner = Inner::new(move |_| with_ids(json(200, RESULT), issued.as_deref().as_slice()));
        let service = signed(&store, keys.clone()).layer(inner);
        let created = send(&service, by(owner, initialize())).await;
        let wire = created.headers["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let tag = if case.is_issued_unsigned { 0 } else { TAG };
        let id = wire[..wire.len() - tag].to_owned();
        assert!(store.peek(&id).await.is_some());
        sessions.push(Issued { owner, wire, id });
    }

    let mut keys = match case.keys {
        Keys::Old => SigningKeys::new(old),
        Keys::OldAndNew => SigningKeys::new(old).add_verifying(new),
        Keys::NewAndOld => SigningKeys::new(new).add_verifying(old),
        Keys::New => SigningKeys::new(new),
    };
    if case.accepts_unsigned {
        keys = keys.insecure_accept_unsigned_until(in_an_hour);
    }
    let mut layer = signed(&store, keys);
    if case.claims {
        layer = layer.with_claim_on_login();
    }
    if case.is_other_scope {
        layer = layer.with_scope(Scope::new("other"));
    }
    let inner = Inner::silent();
    let service = layer.layer(inner.clone());
    let sent = sent(case, &sessions);
    let Ok(value) = HeaderValue::from_bytes(&sent) else {
        return;
    };
    let mut request = by(case.caller, post("to be replaced"));
    request.headers_mut().insert("mcp-session-id", value);
    store.take_calls();
    let answer = send(&service, request).await;
    let (reached, asked) = (inner.calls(), store.take_calls());

    let is_theirs = |session: &&Issued| {
        let is_claimed =
            case.claims && session.owner == Caller::Nobody && case.caller != Caller::Nobody;
        !case.is_other_scope && (session.owner == case.caller || is_claimed)
    };
    let mut theirs = sessions.iter().filter(is_theirs);
    let is_signed = !case.is_issued_unsigned && !matches!(case.keys, Keys::New);
    let proven = theirs
        .clone()
        .find(|session| is_signed && session.wire.as_bytes() == sent);
    let may_be_unsigned = case.accepts_unsigned && is_id(&sent);
    let live = proven.or_else(|| theirs.find(|it| may_be_unsigned && it.id.as_bytes() == sent));
    assert_eq!(!asked.is_empty(), proven.is_some() || may_be_unsigned);
    match live {
        Some(session) => {
            assert_eq!(answer.status, 200);
            let [call] = &reached[..] else {
                panic!("reached {} times", reached.len());
            };
            assert_eq!(call.session.as_ref().unwrap().id().expose(), session.id);
        }
        None => {
            // What HTTP trims is no id at all.
            let is_blank = sent.iter().all(|byte| matches!(byte, b' ' | b'\t'));
            let expected = if is_blank { 400 } else { 404 };
            assert_eq!((answer.status, reached.len()), (expected, 0));
        }
    }

    // Every character of a tag counts.
    if proven.is_some() {
        for nth in sent.len() - TAG + 1..sent.len() {
            let mut altered = sent.clone();
            altered[nth] = if altered[nth] == b'A' { b'B' } else { b'A' };
            let mut request = by(case.caller, post("to be replaced"));
            let value = HeaderValue::from_bytes(&altered).unwrap();
            request.headers_mut().insert("mcp-session-id", value);
            assert_eq!(
                send(&service, request).await.status,
                404,
                "altered at {nth}"
            );
            assert_eq!(store.take_calls().is_empty(), !may_be_unsigned);
        }
    }
}

fn signed(store: &TestStore, keys: SigningKeys) -> SessionLayer {
    layer(store.clone())
        .with_principal(user_header)
        .with_signed_ids(keys)
}

fn by(caller: Caller, request: Request<Body>) -> Request<Body> {
    match caller {
        Caller::Nobody => request,
        Caller::Empty => as_user(request, ""),
        Caller::Alice => as_user(request, "alice"),
        Caller::Bob => as_user(request, "bob"),
    }
}

fn sent(case: &Case, sessions: &[Issued]) -> Vec<u8> {
    let [mine, other] = sessions else {
        unreachable!("two are created");
    };
    let (text, edits) = match &case.wire {
        Wire::Issued(edits) => (mine.wire.clone(), edits),
        Wire::Spliced(edits) => {
            let tag = &other.wire[other.id.len()..];
            (format!("{}{tag}", mine.id), edits)
        }
        Wire::Untagged(edits) => (mine.id.clone(), edits),
        Wire::Any(bytes) => return bytes.clone(),
    };
    let mut text = text.into_bytes();
    for edit in edits.iter().take(4) {
        let at = |at: u16| usize::from(at) % (text.len() + 1);
        match *edit {
            Edit::Cut(end) => text.truncate(at(end)),
            Edit::Skip(start) => drop(text.drain(..at(start))),
            Edit::Set(nth, byte) => {
                let nth = at(nth);
                if let Some(place) = text.get_mut(nth) {
                    *place = byte;
                }
            }
            Edit::Insert(nth, byte) => text.insert(at(nth), byte),
            Edit::Repeat(start) => text.extend_from_within(at(start)..),
        }
    }
    text
}

/// An id of these bytes, each as a character that an id may have.
fn visible(bytes: &[u8]) -> String {
    let bytes = bytes.iter().take(1024);
    bytes.map(|byte| char::from(b'!' + byte % 94)).collect()
}

fn is_id(bytes: &[u8]) -> bool {
    (1..=1024).contains(&bytes.len()) && bytes.iter().all(|byte| (0x21..=0x7E).contains(byte))
}

/// A dot and 43 characters.
const TAG: usize = 44;
