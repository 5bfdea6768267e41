//! What a request asks of sessions, from its method and headers alone.
//!
//! No body, no store, no clock: the same head always gives the same answer, so the whole table is
//! tested below without a server. The layer's `call` is one `match` on it.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{protocol::is_well_formed, protocol::rejection::RejectionKind};

/// What the layer has to do with a request.
///
/// Holds no more than a borrow: an arm that does not use the value is free to change the headers it
/// came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RequestKind<'r> {
    /// Goes inward without its [`SESSION_ID`] header, which is absent, empty, or on a preflight.
    Pass,
    /// Of a revision without sessions: goes inward without [`SESSION_ID`] and [`LAST_EVENT_ID`],
    /// whatever they hold.
    PassModern,
    /// A legacy POST without an id where sessions are required: its body says whether a session is
    /// to be born.
    MaybeBirth,
    /// A legacy POST without an id where sessions are not required: goes inward unread, without its
    /// [`SESSION_ID`] header. An id in its answer makes a session.
    PassMaybeBirth,
    /// Goes inward if the store holds this id live for the caller. The id is well-formed.
    Session(&'r HeaderValue),
    /// As [`Session`](Self::Session), and asks for the session's end.
    Delete(&'r HeaderValue),
    /// Claims this protocol version, which an inner service of legacy revisions does not speak.
    RefuseVersion(&'r HeaderValue),
    /// Is refused for what its head says.
    Refuse(RejectionKind),
}

impl<'r> RequestKind<'r> {
    /// Judges a request on a guarded path.
    #[inline]
    pub(crate) fn of(method: &Method, headers: &'r HeaderMap, rules: Rules) -> Self {
        // A CORS preflight carries no session and must reach whoever answers it.
        if method == Method::OPTIONS {
            return Self::Pass;
        }
        // Two versions could be read as one era here and as the other one inside.
        let Ok(version) = at_most_one(headers, &PROTOCOL_VERSION) else {
            return Self::Refuse(RejectionKind::DuplicateVersionHeader);
        };
        let era = Era::of(version);
        match (era, rules.revisions, version) {
            (Era::Modern | Era::Unknown, Revisions::LegacyOnly, Some(version)) => {
                return Self::RefuseVersion(version);
            }
            // "ignore it" (2026-07-28, Earlier Streamable HTTP Revisions): neither looked up nor
            // counted.
            (Era::Modern, ..) => return Self::PassModern,
            _ => {}
        }
        let Ok(id) = at_most_one(headers, &SESSION_ID) else {
            return Self::Refuse(RejectionKind::DuplicateSessionHeader);
        };
        match id.filter(|id| !is_blank(id)) {
            Some(id) if !is_well_formed(id.as_bytes()) => Self::Refuse(RejectionKind::Malformed),
            Some(id) if method == Method::DELETE => Self::Delete(id),
            Some(id) => Self::Session(id),
            // The inner service owes it a 400 with the versions that it speaks.
            None if era == Era::Unknown => Self::Pass,
            None => match (method == Method::POST, rules.session) {
                (true, SessionNeed::Required) => Self::MaybeBirth,
                (true, SessionNeed::Optional) => Self::PassMaybeBirth,
                // "SHOULD respond to requests without an MCP-Session-Id header (other than
                // initialization) with HTTP 400" (2025-11-25, transports, Session Management).
                (false, SessionNeed::Required) => Self::Refuse(RejectionKind::MissingSession),
                (false, SessionNeed::Optional) => Self::Pass,
            },
        }
    }
}

/// The settings that decide here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) revisions: Revisions,
    pub(crate) session: SessionNeed,
}

/// Which revisions the inner service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Revisions {
    /// Legacy ones and those without sessions, or it answers for itself to what it does not speak.
    #[default]
    All,
    /// None but those with sessions, and it does not say so itself.
    LegacyOnly,
}

/// Whether a legacy request may come without a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionNeed {
    /// Only the request that opens one may.
    #[default]
    Required,
    /// Any may.
    Optional,
}

/// Which rules of sessions a request's protocol version brings with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Without sessions: [`FIRST_MODERN`] and later dates, known or not.
    Modern,
    /// With sessions: earlier dates, and no version at all ("SHOULD assume protocol version
    /// 2025-03-26").
    Legacy,
    /// Not a revision of the protocol.
    Unknown,
}

impl Era {
    /// The era of a request with this protocol version.
    pub(crate) fn of(version: Option<&HeaderValue>) -> Self {
        version.map_or(Self::Legacy, |version| Self::of_version(version.as_bytes()))
    }

    /// The era of this protocol version.
    pub(crate) fn of_version(version: &[u8]) -> Self {
        match version {
            date if !is_date(date) => Self::Unknown,
            // Dates of one shape are in the order of their bytes.
            date if date < FIRST_MODERN => Self::Legacy,
            _ => Self::Modern,
        }
    }
}

/// The one line of this header; an error if there are more. The session id is not a list (RFC 9110,
/// 5.3), nor is the version.
fn at_most_one<'r>(
    headers: &'r HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'r HeaderValue>, ()> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (line, None) => Ok(line),
        _ => Err(()),
    }
}

/// Nothing but what HTTP trims from a value (RFC 9110, 5.5): as good as absent.
fn is_blank(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .iter()
        .all(|byte| matches!(byte, b' ' | b'\t'))
}

/// `NNNN-NN-NN`. Whether the calendar has such a day decides nothing.
fn is_date(version: &[u8]) -> bool {
    version.len() == FIRST_MODERN.len()
        && version.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// Carries the session id, in both directions.
pub(crate) static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Carries the protocol revision of a request (2025-06-18, Protocol Version Header).
pub(crate) static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Asks for the rest of a stream; bound to a session, so it goes where the session id goes.
pub(crate) static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The first revision without sessions.
const FIRST_MODERN: &[u8] = b"2026-07-28";

#[cfg(test)]
mod tests {
    use super::RequestKind::*;
    use super::*;
    use crate::protocol::rejection::RejectionKind::*;
    use proptest::prelude::*;

    const ID: &str = "3f0c6a52-6a0e-4a0e-9d52-0e6f5f1c8a11";
    const DEFAULT: Rules = Rules {
        revisions: Revisions::All,
        session: SessionNeed::Required,
    };
    const LEGACY_ONLY: Rules = Rules {
        revisions: Revisions::LegacyOnly,
        session: SessionNeed::Required,
    };
    const OPTIONAL: Rules = Rules {
        revisions: Revisions::All,
        session: SessionNeed::Optional,
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
            ("nothing at all", &[], &[], [MaybeBirth, missing, missing]),
            (
                "legacy, no id",
                &["2025-11-25"],
                &[],
                [MaybeBirth, missing, missing],
            ),
            (
                "an early date",
                &["0000-00-00"],
                &[],
                [MaybeBirth, missing, missing],
            ),
            (
                "the eve of the modern",
                &["2026-07-27"],
                &[],
                [MaybeBirth, missing, missing],
            ),
            ("empty id", &[], &[""], [MaybeBirth, missing, missing]),
            (
                "blank id",
                &["2025-06-18"],
                &[" \t "],
                [MaybeBirth, missing, missing],
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
            ("modern", &["2026-07-28"], &[], [PassModern; 3]),
            ("later", &["2026-07-29"], &[ID], [PassModern; 3]),
            ("no such day", &["9999-99-99"], &["a b"], [PassModern; 3]),
            (
                "modern, two ids",
                &["2026-07-28"],
                &[ID, "x"],
                [PassModern; 3],
            ),
            ("modern, empty id", &["2026-07-28"], &[""], [PassModern; 3]),
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
            let ask = |method: &str| RequestKind::of(&method.parse().unwrap(), &headers, DEFAULT);
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
                    let kind = RequestKind::of(&method.parse().unwrap(), &headers, LEGACY_ONLY);
                    assert_eq!(
                        kind,
                        RefuseVersion(&value(version)),
                        "{method} {version} {ids:?}"
                    );
                }
                assert_eq!(
                    RequestKind::of(&Method::OPTIONS, &headers, LEGACY_ONLY),
                    Pass
                );
            }
        }
        let twice = headers(&["banana", "banana"], &[]);
        let kind = RequestKind::of(&Method::POST, &twice, LEGACY_ONLY);
        assert_eq!(kind, Refuse(DuplicateVersionHeader));
        for versions in [&[][..], &["2025-11-25"]] {
            let headers = headers(versions, &[ID]);
            let kind = RequestKind::of(&Method::POST, &headers, LEGACY_ONLY);
            assert_eq!(kind, Session(&value(ID)));
        }
    }

    #[test]
    fn where_sessions_are_optional_only_the_absent_id_passes() {
        let id = value(ID);
        let table: &[(&[&str], [RequestKind<'_>; 3])] = &[
            (&[], [PassMaybeBirth, Pass, Pass]),
            (&[" "], [PassMaybeBirth, Pass, Pass]),
            (&[ID], [Session(&id), Delete(&id), Session(&id)]),
            (&["a b"], [Refuse(Malformed); 3]),
            (&[ID, ID], [Refuse(DuplicateSessionHeader); 3]),
        ];
        for (ids, [post, delete, get]) in table {
            let headers = headers(&["2025-11-25"], ids);
            assert_eq!(
                RequestKind::of(&Method::POST, &headers, OPTIONAL),
                *post,
                "{ids:?}"
            );
            assert_eq!(
                RequestKind::of(&Method::DELETE, &headers, OPTIONAL),
                *delete,
                "{ids:?}"
            );
            assert_eq!(
                RequestKind::of(&Method::GET, &headers, OPTIONAL),
                *get,
                "{ids:?}"
            );
        }
    }

    #[test]
    fn eras() {
        assert_eq!(Era::of(None), Era::Legacy);
        let table: &[(&[u8], Era)] = &[
            (b"2024-11-05", Era::Legacy),
            (b"2025-03-26", Era::Legacy),
            (b"2025-06-18", Era::Legacy),
            (b"2025-11-25", Era::Legacy),
            (b"1999-01-01", Era::Legacy),
            (b"2026-07-27", Era::Legacy),
            (b"2026-07-28", Era::Modern),
            (b"2026-10-01", Era::Modern),
            (b"2027-01-01", Era::Modern),
            (b"", Era::Unknown),
            (b" ", Era::Unknown),
            (b" 2026-07-28", Era::Unknown),
            (b"2026-07-28 ", Era::Unknown),
            (b"2026-7-28", Era::Unknown),
            (b"20260728", Era::Unknown),
            (b"2026/07/28", Era::Unknown),
            (b"2026-07-2x", Era::Unknown),
            (b"2O26-07-28", Era::Unknown),
            (b"-026-07-28", Era::Unknown),
            (b"12026-07-28", Era::Unknown),
            (b"2026-07-28-rc", Era::Unknown),
            (b"DRAFT-2026", Era::Unknown),
            (b"v999.0.0", Era::Unknown),
            (b"banana", Era::Unknown),
            ("\u{662}026-07-2".as_bytes(), Era::Unknown),
            (b"\xff026-07-28", Era::Unknown),
        ];
        for (version, era) in table {
            assert_eq!(
                Era::of(Some(&value(version))),
                *era,
                "{}",
                version.escape_ascii()
            );
        }
    }

    #[test]
    fn every_byte_of_an_id() {
        for byte in 0..=u8::MAX {
            let visible = byte.is_ascii_graphic();
            for at in [0, 16, 35] {
                let mut id = ID.as_bytes().to_vec();
                id[at] = byte;
                assert_eq!(is_well_formed(&id), visible, "byte {byte:#04x} at {at}");
            }
        }
        assert!(!is_well_formed(b""));
    }

    #[test]
    fn header_names_are_found_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_bytes(b"MCP-Session-ID").unwrap(),
            value(ID),
        );
        assert_eq!(
            RequestKind::of(&Method::GET, &headers, DEFAULT),
            Session(&value(ID))
        );
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
        /// passes without a look-up is modern, or carries no id that the caller does not remove.
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
            match RequestKind::of(&method.parse().unwrap(), &headers, rules) {
                Session(id) | Delete(id) => {
                    prop_assert!(!modern && ids.len() == 1 && versions.len() < 2);
                    prop_assert_eq!(id.as_bytes(), &ids[0]);
                    prop_assert!((1..=1024).contains(&ids[0].len()));
                    prop_assert!(ids[0].iter().all(u8::is_ascii_graphic));
                }
                PassModern => prop_assert!(modern && rules.revisions == Revisions::All),
                Pass | PassMaybeBirth | MaybeBirth => {
                    prop_assert!(!modern && blank && versions.len() < 2);
                }
                RefuseVersion(_) => prop_assert_eq!(rules.revisions, Revisions::LegacyOnly),
                Refuse(DuplicateVersionHeader) => prop_assert!(versions.len() > 1),
                Refuse(DuplicateSessionHeader) => prop_assert!(ids.len() > 1),
                Refuse(Malformed) => prop_assert!(ids.len() == 1 && !blank),
                Refuse(kind) => prop_assert!(kind == MissingSession && blank && method != "POST"),
            }
        }
    }
}
