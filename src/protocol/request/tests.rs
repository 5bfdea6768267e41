//! The decision table, cell by cell, and random heads against its rules.

use super::RequestKind::*;
use super::*;
use crate::protocol::{LAST_EVENT_ID, PROTOCOL_VERSION, RejectionKind::*, SESSION_ID};
use http::{HeaderMap, HeaderName};
use proptest::prelude::*;

/// Judged as the service does it: from a head that it may mark.
fn judged<'r>(method: &Method, headers: &'r HeaderMap, rules: Rules) -> RequestKind<'r> {
    let mut marked = headers.clone();
    let kept = |lines: Lines<'_>, name| match lines {
        Lines::None => Lines::None,
        Lines::One(_) => Lines::One(&headers[name]),
        Lines::Many => Lines::Many,
    };
    let found = Head::read(&mut marked);
    let head = Head {
        id: kept(found.id, &SESSION_ID),
        version: kept(found.version, &PROTOCOL_VERSION),
        is_initialize: found.is_initialize,
        ..Head::default()
    };
    RequestKind::of(method, &head, rules)
}

const ID: &str = "3f0c6a52-6a0e-4a0e-9d52-0e6f5f1c8a11";
const DEFAULT: Rules = Rules {
    revisions: Revisions::All,
    session: SessionNeed::Required,
    passes_get: false,
    has_signed_ids: false,
};
const LEGACY_ONLY: Rules = Rules {
    revisions: Revisions::LegacyOnly,
    session: SessionNeed::Required,
    passes_get: false,
    has_signed_ids: false,
};
const OPTIONAL: Rules = Rules {
    revisions: Revisions::All,
    session: SessionNeed::Optional,
    passes_get: false,
    has_signed_ids: false,
};

fn value(bytes: impl AsRef<[u8]>) -> HeaderValue {
    HeaderValue::from_bytes(bytes.as_ref()).unwrap()
}

fn headers<B: AsRef<[u8]>>(versions: &[B], ids: &[B]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for version in versions {
        headers.append(&PROTOCOL_VERSION, value(version));
    }
    for id in ids {
        headers.append(&SESSION_ID, value(id));
    }
    headers.insert(&LAST_EVENT_ID, value("7"));
    headers
}

const OTHERS: [&str; 5] = ["GET", "HEAD", "DELETE", "PUT", "BREW"];

/// Rows of the table: version lines, id lines, then what is expected of POST, of DELETE, and of
/// every other method.
#[test]
fn the_table() {
    let id = &value(ID);
    let long = "x".repeat(1024);
    let (at_cap, over_cap) = (&value(&long), format!("{long}x"));
    let comma = &value("a,b");
    let missing = Refuse(MissingSession);
    let twice = Refuse(DuplicateSessionHeader);
    let versions = Refuse(DuplicateVersionHeader);
    let malformed = Refuse(Malformed);
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], [RequestKind<'a>; 3]);
    let table: &[Row<'_>] = &[
        (
            "nothing at all",
            &[],
            &[],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "legacy, no id",
            &["2025-11-25"],
            &[],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "an early date",
            &["0000-00-00"],
            &[],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "the eve of the modern",
            &["2026-07-27"],
            &[],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "empty id",
            &[],
            &[""],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "blank id",
            &["2025-06-18"],
            &[" \t "],
            [MaybeInitialize(Otherwise::Refuse), missing, missing],
        ),
        (
            "an id",
            &["2025-11-25"],
            &[ID],
            [Session(id), Delete(id), Session(id)],
        ),
        (
            "an id, no version",
            &[],
            &[ID],
            [Session(id), Delete(id), Session(id)],
        ),
        (
            "an id with a comma",
            &[],
            &["a,b"],
            [Session(comma), Delete(comma), Session(comma)],
        ),
        (
            "the longest id",
            &[],
            &[&long],
            [Session(at_cap), Delete(at_cap), Session(at_cap)],
        ),
        ("too long an id", &[], &[&over_cap], [malformed; 3]),
        ("a space within", &[], &["a b"], [malformed; 3]),
        ("a space before", &[], &[" a"], [malformed; 3]),
        ("a tab after", &[], &["a\t"], [malformed; 3]),
        ("not ASCII", &[], &["caf\u{e9}"], [malformed; 3]),
        ("one id twice", &[], &[ID, ID], [twice; 3]),
        ("two ids", &["2025-11-25"], &[ID, "x"], [twice; 3]),
        ("two empty ids", &[], &["", ""], [twice; 3]),
        ("an empty id and one", &[], &["", ID], [twice; 3]),
        ("modern", &["2026-07-28"], &[], [Pass; 3]),
        ("later", &["2026-07-29"], &[ID], [Pass; 3]),
        ("no such day", &["9999-99-99"], &["a b"], [Pass; 3]),
        ("modern, two ids", &["2026-07-28"], &[ID, "x"], [Pass; 3]),
        ("modern, empty id", &["2026-07-28"], &[""], [Pass; 3]),
        ("unknown, no id", &["v999.0.0"], &[], [Pass; 3]),
        ("unknown, empty id", &["banana"], &[""], [Pass; 3]),
        (
            "unknown, an id",
            &["banana"],
            &[ID],
            [Session(id), Delete(id), Session(id)],
        ),
        ("unknown, a bad id", &["banana"], &["a b"], [malformed; 3]),
        ("unknown, two ids", &["banana"], &[ID, ID], [twice; 3]),
        ("empty version", &[""], &[], [Pass; 3]),
        (
            "both eras",
            &["2025-11-25", "2026-07-28"],
            &[ID],
            [versions; 3],
        ),
        (
            "one version twice",
            &["2026-07-28", "2026-07-28"],
            &[],
            [versions; 3],
        ),
        (
            "both doubled",
            &["2025-11-25", "2025-11-25"],
            &[ID, ID],
            [versions; 3],
        ),
    ];
    for (name, versions, ids, [post, delete, other]) in table {
        let headers = headers(versions, ids);
        let ask = |method: &str| judged(&method.parse().unwrap(), &headers, DEFAULT);
        assert_eq!(ask("OPTIONS"), Pass, "{name}: OPTIONS");
        assert_eq!(ask("POST"), *post, "{name}: POST");
        for method in OTHERS {
            let expected = if method == "DELETE" { delete } else { other };
            assert_eq!(ask(method), *expected, "{name}: {method}");
        }
    }
}

#[test]
fn an_inner_service_of_legacy_revisions_hears_no_other() {
    for version in ["2026-07-28", "9999-99-99", "v999.0.0", "banana", ""] {
        for ids in [&[][..], &[""], &[ID], &["a b"], &[ID, ID]] {
            let headers = headers(&[version], ids);
            for method in OTHERS.iter().chain(&["POST"]) {
                let kind = judged(&method.parse().unwrap(), &headers, LEGACY_ONLY);
                assert_eq!(
                    kind,
                    RefuseVersion(&value(version)),
                    "{method} {version} {ids:?}"
                );
            }
            assert_eq!(judged(&Method::OPTIONS, &headers, LEGACY_ONLY), Pass);
        }
    }
    let twice = headers(&["banana", "banana"], &[]);
    let kind = judged(&Method::POST, &twice, LEGACY_ONLY);
    assert_eq!(kind, Refuse(DuplicateVersionHeader));
    for versions in [&[][..], &["2025-11-25"]] {
        let headers = headers(versions, &[ID]);
        let kind = judged(&Method::POST, &headers, LEGACY_ONLY);
        assert_eq!(kind, Session(&value(ID)));
    }
}

#[test]
fn where_sessions_are_optional_only_the_absent_id_passes() {
    let id = value(ID);
    let table: &[(&[&str], [RequestKind<'_>; 3])] = &[
        (&[], [MaybeInitialize(Otherwise::Adopt), Pass, Pass]),
        (&[" "], [MaybeInitialize(Otherwise::Adopt), Pass, Pass]),
        (&[ID], [Session(&id), Delete(&id), Session(&id)]),
        (&["a b"], [Refuse(Malformed); 3]),
        (&[ID, ID], [Refuse(DuplicateSessionHeader); 3]),
    ];
    for (ids, [post, delete, get]) in table {
        let headers = headers(&["2025-11-25"], ids);
        assert_eq!(judged(&Method::POST, &headers, OPTIONAL), *post, "{ids:?}");
        assert_eq!(
            judged(&Method::DELETE, &headers, OPTIONAL),
            *delete,
            "{ids:?}"
        );
        assert_eq!(judged(&Method::GET, &headers, OPTIONAL), *get, "{ids:?}");
    }
}

#[test]
fn a_get_without_an_id_passes_where_it_may() {
    let rules = Rules {
        passes_get: true,
        ..DEFAULT
    };
    let missing = Refuse(MissingSession);
    let twice = Refuse(DuplicateSessionHeader);
    let id = value(ID);
    let table: &[(&[&str], [RequestKind<'_>; 3])] = &[
        (&[], [Pass, missing, missing]),
        (&[""], [Pass, missing, missing]),
        (&[ID], [Session(&id), Delete(&id), Session(&id)]),
        (&["a b"], [Refuse(Malformed); 3]),
        (&[ID, ID], [twice; 3]),
    ];
    for (ids, [get, delete, put]) in table {
        let headers = headers(&[], ids);
        for (method, expected) in [
            (Method::GET, get),
            (Method::DELETE, delete),
            (Method::PUT, put),
        ] {
            assert_eq!(judged(&method, &headers, rules), *expected, "{ids:?}");
        }
    }
    let nothing = HeaderMap::new();
    let post = judged(&Method::POST, &nothing, rules);
    assert_eq!(post, MaybeInitialize(Otherwise::Refuse));
    let head = judged(&Method::HEAD, &nothing, rules);
    assert_eq!(head, missing);
}

/// An `initialize` asks for a session whatever the version, so it has to be read; nothing else has.
#[test]
fn a_modern_post_is_read_if_it_is_said_to_be_initialize() {
    for (method, name, expected) in [
        ("POST", "initialize", MaybeInitialize(Otherwise::Pass)),
        ("POST", "tools/list", Pass),
        ("GET", "initialize", Pass),
        ("DELETE", "initialize", Pass),
    ] {
        for ids in [&[][..], &[ID], &["a b"], &[ID, ID]] {
            let mut headers = headers(&["2026-07-28"], ids);
            headers.insert("mcp-method", value(name));
            let method = method.parse().unwrap();
            assert_eq!(judged(&method, &headers, DEFAULT), expected);
            assert_eq!(judged(&method, &headers, OPTIONAL), expected);
            let refused = RefuseVersion(&headers[&PROTOCOL_VERSION]);
            assert_eq!(judged(&method, &headers, LEGACY_ONLY), refused);
        }
    }
    // To a legacy request it says nothing.
    let mut headers = headers(&["2025-11-25"], &[ID]);
    headers.insert("mcp-method", value("initialize"));
    let kind = judged(&Method::POST, &headers, DEFAULT);
    assert_eq!(kind, Session(&value(ID)));
}

#[test]
fn header_names_are_found_in_any_case() {
    let mut headers = HeaderMap::new();
    headers.insert(
        HeaderName::from_bytes(b"MCP-Session-ID").unwrap(),
        value(ID),
    );
    assert_eq!(judged(&Method::GET, &headers, DEFAULT), Session(&value(ID)));
}

fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = prop_oneof![
        Just(b"2025-11-25".to_vec()),
        Just(b"2026-07-28".to_vec()),
        Just(ID.as_bytes().to_vec()),
        "[ \t]{0,3}".prop_map(String::into_bytes),
        proptest::collection::vec(
            prop_oneof![Just(b'\t'), 0x20..=0x7Eu8, 0x80..=0xFFu8],
            0..12
        ),
    ];
    proptest::collection::vec(line, 0..3)
}

proptest! {
    /// Whatever the head: what is looked up is the only id there is, and can be one; what
    /// passes without a look-up is modern, or carries no id.
    #[test]
    fn no_head_slips_through(
        versions in lines(),
        ids in lines(),
        method in prop_oneof!["(GET|POST|DELETE|PUT|HEAD)", "[A-Z]{1,9}"],
        rules in prop_oneof![Just(DEFAULT), Just(LEGACY_ONLY), Just(OPTIONAL)],
    ) {
        prop_assume!(method != "OPTIONS");
        let headers = headers(&versions, &ids);
        let era = |version| Era::of(Some(&value(version)));
        let modern = matches!(&versions[..], [one] if era(one) == Era::Modern);
        let blank = ids.iter().all(|id| id.trim_ascii().is_empty()) && ids.len() < 2;
        match judged(&method.parse().unwrap(), &headers, rules) {
            Session(id) | Delete(id) => {
                prop_assert!(!modern && ids.len() == 1 && versions.len() < 2);
                prop_assert_eq!(id.as_bytes(), &ids[0]);
                prop_assert!((1..=1024).contains(&ids[0].len()));
                prop_assert!(ids[0].iter().all(u8::is_ascii_graphic));
            }
            Pass if modern => prop_assert_eq!(rules.revisions, Revisions::All),
            MaybeInitialize(Otherwise::Pass) => prop_assert!(modern && method == "POST"),
            Pass | MaybeInitialize(_) => prop_assert!(!modern && blank && versions.len() < 2),
            RefuseVersion(_) => prop_assert_eq!(rules.revisions, Revisions::LegacyOnly),
            Refuse(DuplicateVersionHeader) => prop_assert!(versions.len() > 1),
            Refuse(DuplicateSessionHeader) => prop_assert!(ids.len() > 1),
            Refuse(Malformed) => prop_assert!(ids.len() == 1 && !blank),
            Refuse(kind) => prop_assert!(kind == MissingSession && blank && method != "POST"),
        }
    }
}
