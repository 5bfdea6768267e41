//! What is read from bodies, by examples and against serde_json's own parser.

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRng, TestRunner},
};
use serde_json::Value;

use super::*;

fn read(body: &str) -> Message<'_> {
    Message::read(body.as_bytes()).unwrap().unwrap()
}

fn is_initialize(body: &[u8]) -> bool {
    matches!(Message::read(body), Ok(Some(message)) if message.is_initialize())
}

#[test]
fn what_is_an_initialize_request() {
    let yes = [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
        r#" {"method":"initialize","id":"x"} "#,
        r#"{"method":"initialize","id":-1.5}"#,
        // Another spelling of the same string is the same string.
        r#"{"\u006dethod":"initi\u0061lize","id":1}"#,
    ];
    let no = [
        "",
        "{",
        "null",
        r#"{"method":"initialize"}"#,
        r#"{"method":"initialize","id":null}"#,
        r#"{"method":"initialize","id":true}"#,
        r#"{"method":"initialize","id":[1]}"#,
        r#"{"method":"Initialize","id":1}"#,
        r#"{"method":["initialize"],"id":1}"#,
        r#"{"method":"ping","params":{"method":"initialize"},"id":1}"#,
        r#"[{"method":"initialize","id":1}]"#,
        r#"["2.0",1,"initialize",{}]"#,
        r#"{"method":"initialize","method":"ping","id":1}"#,
        r#"{"method":"initialize","m\u0065thod":"ping","id":1}"#,
        r#"{"method":"initialize","id":1,"x":1,"x":2}"#,
        r#"{"method":"initialize","id":1,"params":{"_meta":{},"_meta":{}}}"#,
        r#"{"method":"initialize","id":1} {}"#,
        r#"{"method":"initialize","id":1e400}"#,
        r#"{"method":"initialize","id":1,"x":1e400}"#,
        r#"{"method":"initialize","id":1,"x":"\ud800"}"#,
        "{\"method\":\"initialize\",\"id\":1,\"x\":\"\n\"}",
    ];
    for body in yes {
        assert!(is_initialize(body.as_bytes()), "{body}");
    }
    for body in no {
        assert!(!is_initialize(body.as_bytes()), "{body}");
    }
    let nested = |depth| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"method":"initialize","id":1,"x":{open}{close}}}"#)
    };
    assert!(is_initialize(nested(126).as_bytes()));
    assert!(!is_initialize(nested(127).as_bytes()));
    assert!(!is_initialize(nested(30_000).as_bytes()));
}

#[test]
fn json_without_a_method_is_no_message() {
    for body in [
        "[]",
        "1",
        r#"{"id":1,"result":{}}"#,
        r#"{"method":1,"id":1}"#,
    ] {
        assert!(matches!(Message::read(body.as_bytes()), Ok(None)), "{body}");
    }
}

#[test]
fn a_request_id_is_given_back_as_it_was_sent() {
    for id in [
        "1",
        "-0.50e3",
        r#""a\u0041""#,
        "123456789012345678901234567890",
    ] {
        let body = format!(r#"{{"method":"ping","id":{id}}}"#);
        assert_eq!(read(&body).request_id().unwrap().get(), id);
    }
}

#[test]
fn a_message_can_claim_a_version_by_itself() {
    let claimed = |version: &str| {
        let body = format!(
            r#"{{"method":"ping","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version}}}}}}}"#
        );
        read(&body).claimed_version().unwrap()
    };
    let long = "x".repeat(300);
    for (version, expected) in [
        (r#""2026-07-28""#, "2026-07-28"),
        (r#""2025-11-25""#, "2025-11-25"),
        (r#""banana""#, "banana"),
        (r#""""#, ""),
        ("20260728", "20260728"),
        ("null", "null"),
        (r#"["a"]"#, r#"["a"]"#),
        (&format!("{long:?}"), &long[..256]),
    ] {
        assert_eq!(claimed(version), expected);
    }
    for body in [
        r#"{"method":"ping"}"#,
        r#"{"method":"ping","params":[]}"#,
        r#"{"method":"ping","params":{"_meta":null}}"#,
        r#"{"method":"ping","params":{"_meta":{"protocolVersion":"2026-07-28"}}}"#,
        r#"{"method":"ping","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#,
    ] {
        assert_eq!(read(body).claimed_version(), None, "{body}");
    }
}

#[test]
fn what_an_answer_is() {
    let table = [
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Answer::Result),
        (r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, Answer::Error),
        (r#"{"jsonrpc":"2.0","error":{}}"#, Answer::AnonymousError),
        (
            r#"{"jsonrpc":"2.0","id":null,"error":{}}"#,
            Answer::AnonymousError,
        ),
        (r#"{"id":1,"result":{},"error":{}}"#, Answer::Other),
        (r#"{"result":{}}"#, Answer::Other),
        ("Not Found", Answer::Other),
        ("", Answer::Other),
    ];
    for (body, expected) in table {
        assert_eq!(Answer::read(body.as_bytes()), expected, "{body}");
    }
}

/// What serde_json makes of a body: whether it is an `initialize` request, if keys twice do not matter.
fn serde_json_says_initialize(body: &[u8]) -> bool {
    let Ok(Value::Object(message)) = serde_json::from_slice(body) else {
        return false;
    };
    message.get("method").and_then(Value::as_str) == Some("initialize")
        && matches!(message.get("id"), Some(Value::String(_) | Value::Number(_)))
}

/// JSON as it might be sent, nearly: scalars at the edge, keys that come twice.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        9 => proptest::sample::select(SCALARS),
        1 => proptest::sample::select(REFUSED),
    ];
    let scalar = scalar.prop_map(str::to_owned);
    scalar.prop_recursive(4, 24, 4, |inner| {
        let member = (proptest::sample::select(KEYS), inner.clone());
        prop_oneof![
            4 => proptest::collection::vec(inner, 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            8 => proptest::collection::vec(member, 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{key} : {value}"))
                    .collect();
                format!("{{{}}}", members.join(" ,\t"))
            }),
            1 => (100..140usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        ]
    })
}

/// Most of them an `initialize` request but for what stands beside it, and some with bytes changed.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        1 => json(),
        4 => (proptest::sample::select(IDS), json(), json()).prop_map(|(id, params, other)| format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{params},"x":{other}}}"#
        )),
    ];
    let change = (any::<proptest::sample::Index>(), any::<u8>());
    let changes = prop_oneof![
        4 => Just(vec![]),
        1 => proptest::collection::vec(change, 1..3),
    ];
    (whole, changes).prop_map(|(whole, changes)| {
        let mut body = whole.into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body
    })
}

#[test]
fn only_what_serde_json_reads_is_an_initialize_request() {
    let (yes, twice, no) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let checked = TestRunner::new_with_rng(config, rng).run(&body(), |body| {
        let (here, there) = (is_initialize(&body), serde_json_says_initialize(&body));
        let error = Message::read(&body).err();
        let has_key_twice = error.is_some_and(|error| error.starts_with("a key twice"));
        prop_assert_eq!(here, there && !has_key_twice, "{}", body.escape_ascii());
        let count = match (here, there) {
            (true, _) => &yes,
            (false, true) => &twice,
            (false, false) => &no,
        };
        count.set(count.get() + 1);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    let counts = [yes.get(), twice.get(), no.get()];
    println!("initialize, with a key twice, not: {counts:?}");
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}

const SCALARS: &[&str] = &[
    "null",
    "true",
    "0",
    "-0",
    "-1.50e3",
    "18446744073709551616",
    "1e308",
    r#""""#,
    r#""initialize""#,
    r#""\ud83d\ude00""#,
    "\"\u{7f}\u{feff}\"",
];

const REFUSED: &[&str] = &[
    "1e309",
    "-1e400",
    "01",
    "1.",
    "NaN",
    r#""\ud83d""#,
    r#""\ude00\ud83d""#,
    r#""\u12""#,
    r#""\x""#,
    "\"\n\"",
];

const KEYS: &[&str] = &[
    r#""id""#,
    r#""method""#,
    r#""m\u0065thod""#,
    r#""params""#,
    r#""_meta""#,
    r#""a""#,
    r#""b""#,
    r#""c""#,
    r#""d""#,
    r#""\ud800""#,
];

const IDS: &[&str] = &["1", "-0.5", r#""x""#, "0", r#""y""#, "1e400", "null"];
