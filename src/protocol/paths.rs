//! Which paths are guarded.
//!
//! A path that the inner service could take for a guarded one is guarded, whatever decoding and
//! tidying it does on the way. The error that is left is on the safe side: a request that no client
//! sends by accident is asked for a session in vain.

use std::borrow::Cow;

/// The paths on which sessions are checked; everything by default.
///
/// No path is no restriction: whoever gives an empty list has lost one.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuardedPaths(Box<[String]>);

impl GuardedPaths {
    /// Each path stands for itself and all below it; `/` for everything.
    ///
    /// Route patterns are not matched: a path with a `{name}` or a `*` in it guards all below what
    /// comes before.
    pub(crate) fn new(paths: impl IntoIterator<Item: Into<String>>) -> Self {
        Self(
            paths
                .into_iter()
                .map(|path| canonical(&path.into()))
                .collect(),
        )
    }

    /// Whether all paths are guarded.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request is guarded, by the path that this service sees and the one that the client
    /// sent, if they differ (a nested axum router takes its prefix away and keeps the
    /// `OriginalUri`). Either suffices.
    #[inline]
    pub(crate) fn guards(&self, path: &str, original: Option<&str>) -> bool {
        self.0.is_empty()
            || self.covers(path)
            || original.is_some_and(|original| self.covers(original))
    }

    fn covers(&self, path: &str) -> bool {
        if is_plain(path) {
            return self.0.iter().any(|guarded| is_below(guarded, path));
        }
        let Some(path) = decode_fully(path) else {
            return true;
        };
        // These take segments away, and which ones depends on what has been decoded and merged by
        // then.
        let shifting = path.contains(';') || segments(&path).any(|segment| segment == "..");
        self.0.iter().any(|guarded| {
            let mut left = segments(&path);
            segments(guarded).all(|wanted| match shifting {
                true => left.any(|segment| segment == wanted),
                false => left.next() == Some(wanted),
            })
        })
    }
}

/// Whether nobody could read this path in another way than it is written: no escape, nothing to
/// merge, no dots to resolve, no parameters, none of the other slash.
fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    path.bytes().all(|byte| {
        let plain = !matches!(
            (previous, byte),
            (_, b'%' | b';' | b'\\') | (b'/', b'/' | b'.')
        );
        previous = byte;
        plain
    })
}

/// Below at a segment border: `guarded` has no slash at its end.
fn is_below(guarded: &str, path: &str) -> bool {
    guarded.is_empty()
        || path
            .strip_prefix(guarded)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path as it is kept: decoded, merged, resolved, with a slash before each segment and none at
/// the end.
fn canonical(path: &str) -> String {
    let path = decode_fully(path).unwrap_or(Cow::Borrowed(path));
    let mut kept = Vec::new();
    for segment in segments(&path).take_while(|segment| !segment.contains(['{', '*'])) {
        match segment {
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    kept.iter().flat_map(|segment| ["/", segment]).collect()
}

/// What is between the breaks, of a path that has been decoded. Cutting where some reader would cut
/// is safe where another one would not: guarded are paths that *begin* with the right segments.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split(BREAKS)
        .filter(|segment| !matches!(*segment, "" | "."))
}

/// Decodes until there is nothing left to decode, as a chain of proxies and routers might between
/// them. `None` if it cannot be told what they would make of it: an escape that is none, or bytes
/// that are no text.
///
/// One pass: an escape is decoded as soon as its last byte is there, and the byte that comes of it
/// may end another one. Escapes do not overlap, so decoding them in another order comes to the
/// same.
fn decode_fully(path: &str) -> Option<Cow<'_, str>> {
    let Some((plain, _)) = path.split_once('%') else {
        return Some(Cow::Borrowed(path));
    };
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if hex(*a).and(hex(*b)).is_some());
    if !path.split('%').skip(1).all(is_escape) {
        return None;
    }
    let mut decoded = Vec::from(plain);
    for byte in path[plain.len()..].bytes() {
        decoded.push(byte);
        while let [.., b'%', high, low] = decoded[..]
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(high << 4 | low);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Slashes, the start of parameters, and what ends a path once it has been decoded and is parsed
/// again.
const BREAKS: [char; 6] = ['/', '\\', ';', '?', '#', '\0'];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guarded(paths: &[&str], path: &str) -> bool {
        GuardedPaths::new(paths.iter().copied()).guards(path, None)
    }

    #[test]
    fn a_path_is_itself_and_all_below() {
        let table = [
            ("/mcp", true),
            ("/mcp/", true),
            ("/mcp/x", true),
            ("/mcp/x/y.z", true),
            ("/mcp.", false),
            ("/mcpx", false),
            ("/mcp-2", false),
            ("/mc", false),
            ("/MCP", false),
            ("/", false),
            ("", false),
            ("*", false),
            ("/x/mcp", false),
            ("/.well-known/oauth-protected-resource/mcp", false),
            ("/caf\u{e9}", false),
        ];
        for (path, expected) in table {
            assert_eq!(guarded(&["/mcp"], path), expected, "{path}");
            assert_eq!(
                guarded(&["/other", "/mcp/"], path),
                expected,
                "{path}, second of two"
            );
        }
    }

    /// What a decoder, a slash merger, a dot resolver, or several of them in any order could make
    /// `/mcp` of.
    #[test]
    fn disguises_are_guarded() {
        for path in [
            "//mcp",
            "/mcp//",
            "/./mcp",
            "/mcp/.",
            "/mcp/..",
            "/mcp/../x",
            "/x/../mcp",
            "/../mcp",
            "/x//../mcp",
            "/x/y/../../mcp/z",
            "/%6dcp",
            "/%6Dcp",
            "/m%63p/x",
            "/%256dcp",
            "/%25256dcp",
            "/%25%36%64cp",
            "/%%36dcp",
            "/mcp%2F",
            "/mcp%2fx",
            "%2Fmcp",
            "/%2e/mcp",
            "/x/%2E%2e/mcp",
            "/x%2F..%2Fmcp",
            "/x%2Fy/../mcp",
            "/x%252Fy/../mcp",
            "/mcp%3Fx",
            "/mcp%23x",
            "/mcp%00.html",
            "/mcp%5Cx",
            "\\mcp",
            "/x\\..\\mcp",
            "/mcp;v=1",
            "/;/mcp",
            "/x;/..;/mcp",
            "/mcp%3bx",
        ] {
            assert!(guarded(&["/mcp"], path), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_guarded() {
        for path in [
            "/%",
            "/x%",
            "/x%2",
            "/x%zz",
            "/x%2g",
            "/x%+1",
            "/x%c0%af",
            "/caf%e9",
            "/x/%e2%82",
        ] {
            assert!(guarded(&["/mcp"], path), "{path}");
        }
    }

    /// The rest of the application is left alone, escapes, dots and all.
    #[test]
    fn others_are_not() {
        for path in [
            "/a%20b",
            "/a%20b/mcp",
            "/caf%c3%a9",
            "/100%25",
            "/100%25/mcp",
            "//x//mcp",
            "/./x/mcp",
            "/x/../y",
            "/mcpx/../y",
            "/x%2Fmcp",
            "/%4dCP",
            "/mcp%20",
            "/x;mc/p",
            "/.well-known/mcp.json",
        ] {
            assert!(!guarded(&["/mcp"], path), "{path}");
        }
    }

    #[test]
    fn given_paths_are_read_as_those_of_requests() {
        for given in [
            "/a b",
            "a b",
            "/a%20b/",
            "//a b",
            "/a%2520b",
            "/./x/../a b",
            "/a b/{id}",
            "/a b/{*rest}/c",
            "/a b/*",
        ] {
            assert!(guarded(&[given], "/a%20b/x"), "{given}");
            assert!(!guarded(&[given], "/a"), "{given}");
        }
        for given in ["/api/mcp", "/api//mcp", "/api%2Fmcp", "/../api/x/../mcp"] {
            for (path, expected) in [
                ("/api/mcp/x", true),
                ("/api/x/../mcp", true),
                ("/api", false),
                ("/mcp", false),
            ] {
                assert_eq!(guarded(&[given], path), expected, "{given} {path}");
            }
        }
        for given in ["/100%", "/100%25"] {
            assert!(guarded(&[given], "/100%25/x"), "{given}");
            assert!(!guarded(&[given], "/100"), "{given}");
        }
    }

    #[test]
    fn everything() {
        let all = [
            GuardedPaths::default(),
            GuardedPaths::new([""; 0]),
            GuardedPaths::new(["/"]),
            GuardedPaths::new([""]),
            GuardedPaths::new(["/x", "//."]),
            GuardedPaths::new(["/{tenant}/mcp"]),
        ];
        for paths in all {
            for path in ["/", "", "*", "/mcp", "/y/%2e%2e/z", "//"] {
                assert!(paths.guards(path, None), "{paths:?} {path}");
            }
        }
    }

    #[test]
    fn either_path_suffices() {
        let paths = GuardedPaths::new(["/api/mcp"]);
        assert!(paths.guards("/mcp", Some("/api/mcp")));
        assert!(paths.guards("/api/mcp", Some("/v1/api/mcp")));
        assert!(!paths.guards("/mcp", Some("/v1/mcp")));
        assert!(!paths.guards("/mcp", None));
    }

    /// 60 kB that take a decoder 30,000 rounds: quadratic would be minutes, one pass is
    /// milliseconds.
    #[test]
    fn escapes_of_escapes_are_cheap() {
        let path = format!("/%{}6dcp", "25".repeat(30_000));
        let start = std::time::Instant::now();
        assert!(guarded(&["/mcp"], &path));
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    /// One thing that somebody between the client and the handler may do to a path.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Decode,
        DecodeButSlashes,
        Merge,
        ResolveDots,
        DropParameters,
        TurnBackslashes,
        CutAtNul,
        CutAtQuery,
    }

    impl Step {
        fn apply(self, path: &str) -> String {
            let decode = |path: &str| {
                percent_encoding::percent_decode_str(path)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            match self {
                Self::Decode => decode(path),
                Self::DecodeButSlashes => {
                    let kept = path.replace("%2F", "%252F").replace("%2f", "%252f");
                    decode(&kept)
                }
                Self::Merge => {
                    let mut path = path.to_owned();
                    while path.contains("//") {
                        path = path.replace("//", "/");
                    }
                    path
                }
                Self::ResolveDots => {
                    let mut kept: Vec<&str> = Vec::new();
                    for segment in path.split('/').skip(1) {
                        match segment {
                            "." => {}
                            ".." => drop(kept.pop()),
                            _ => kept.push(segment),
                        }
                    }
                    kept.iter().flat_map(|segment| ["/", segment]).collect()
                }
                Self::DropParameters => {
                    let bare = path
                        .split('/')
                        .map(|segment| segment.split(';').next().unwrap_or_default());
                    bare.collect::<Vec<_>>().join("/")
                }
                Self::TurnBackslashes => path.replace('\\', "/"),
                Self::CutAtNul => path.split('\0').next().unwrap_or_default().to_owned(),
                Self::CutAtQuery => path.split(['?', '#']).next().unwrap_or_default().to_owned(),
            }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        use Step::*;
        let step = proptest::sample::select(vec![
            Decode,
            DecodeButSlashes,
            Merge,
            ResolveDots,
            DropParameters,
            TurnBackslashes,
            CutAtNul,
            CutAtQuery,
        ]);
        proptest::collection::vec(step, 0..7)
    }

    /// Paths of pieces that mean something to somebody; some of them come close to `/mcp/v1`.
    fn path() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            "/", "/mcp", "/mcp/v1", "mcp", "/v1", "..", "/..", "/x/..", "/.", "/x", "%2F", "%252F",
            "/%2e%2e", "/%6dcp", "/%256d", "cp", "%", "%25", "25", "6d", "\\", "/..;", ";", "%3b",
            "%00", "%3F", "%23", "%C3", "\u{e9}",
        ]);
        proptest::collection::vec(piece, 1..6).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// One way to hide a path from this reader; each has a [`Step`] that brings it to light again.
    #[derive(Clone, Copy, Debug)]
    enum Disguise {
        Escape,
        Insert(&'static str),
        TurnSlash,
    }

    impl Disguise {
        /// At the given place, or what comes nearest to it: a byte to escape, a slash for all
        /// others.
        fn apply(self, path: &str, at: proptest::sample::Index) -> String {
            let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
            let (at, with) = match self {
                Self::Escape => {
                    let at = at.index(path.len());
                    (at, format!("%{:02x}", path.as_bytes()[at]))
                }
                _ if slashes.is_empty() => return path.to_owned(),
                Self::Insert(what) => (slashes[at.index(slashes.len())], format!("{what}/")),
                Self::TurnSlash => (slashes[at.index(slashes.len())], "\\".to_owned()),
            };
            format!("{}{with}{}", &path[..at], &path[at + 1..])
        }
    }

    fn disguises() -> impl Strategy<Value = Vec<(Disguise, proptest::sample::Index)>> {
        use Disguise::*;
        let disguise = prop_oneof![
            6 => Just(Escape),
            1 => Just(TurnSlash),
            2 => proptest::sample::select(vec!["/", "/.", "/x/..", "/x//..", "/mcp/..", ";p"])
                .prop_map(Insert),
        ];
        proptest::collection::vec((disguise, any::<proptest::sample::Index>()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// Whatever the inner service makes of a path: if it comes to a guarded one, the path was
        /// guarded.
        #[test]
        fn no_inner_service_sees_a_guarded_path_unguarded(path in path(), steps in steps()) {
            for given in ["/mcp", "/mcp/v1"] {
                let seen = steps.iter().fold(path.clone(), |path, step| step.apply(&path));
                if seen == given || seen.starts_with(&format!("{given}/")) {
                    prop_assert!(guarded(&[given], &path), "{} is seen as {}", path, seen);
                }
            }
        }

        /// The same from the other end: a guarded path that was hidden in many ways.
        #[test]
        fn no_disguise_helps(disguises in disguises()) {
            let hide = |path: String, (disguise, at): &(Disguise, _)| disguise.apply(&path, *at);
            let path = disguises.iter().fold("/mcp/v1/y".to_owned(), hide);
            prop_assert!(guarded(&["/mcp/v1"], &path), "{}", path);
        }

        /// The quick way says what the thorough one would.
        #[test]
        fn plain_paths_are_read_as_written(path in "/(mcp|v1|x|/|\\.|\\.\\.|mcp/v1){0,6}") {
            let seen = Step::Merge.apply(&path);
            let expected = seen == "/mcp" || seen.starts_with("/mcp/");
            if is_plain(&path) {
                prop_assert_eq!(guarded(&["/mcp"], &path), expected);
            }
        }
    }
}
