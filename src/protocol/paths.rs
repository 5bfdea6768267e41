//! Which paths are guarded.
//!
//! A request passes if no reading of its path arrives at a guarded one: what one reader leaves as `/x/%2e%2e/mcp` is
//! `/mcp` to the next.

use crate::protocol::{
    entries::{InvalidPath, spellings},
    readings::{BREAKS, decode_fully, is_plain, some_reading},
};

/// The paths on which sessions are checked; everything by default.
///
/// A path means itself and all below it, at a segment border: `/mcp` is `/mcp`, `/mcp/` and `/mcp/x`, not `/mcpx`. `/`
/// is everything, and so is no path at all: whoever gives an empty list has lost one.
///
/// Paths are written as in a request, percent-encoded, and without patterns: axum's `/mcp/{*rest}` is `/mcp` here.
#[derive(Clone, Debug)]
pub struct GuardedPaths {
    guarded: Vec<String>,
    exceptions: Vec<String>,
}

impl GuardedPaths {
    /// Guards these paths and all below them.
    ///
    /// # Panics
    ///
    /// On a path that no request has, such as `mcp`, `/mcp?x` or `/{name}`, and says what to write instead.
    #[must_use]
    #[track_caller]
    pub fn new(paths: impl IntoIterator<Item: Into<String>>) -> Self {
        // Not by a closure: the panic is to name the caller's line.
        match Self::try_new(paths) {
            Ok(paths) => paths,
            Err(invalid) => panic!("{invalid}"),
        }
    }

    /// Guards these paths and all below them.
    ///
    /// # Errors
    ///
    /// On what [`new`](Self::new) panics on.
    pub fn try_new(paths: impl IntoIterator<Item: Into<String>>) -> Result<Self, InvalidPath> {
        let mut guarded = Self::default();
        let paths = spellings(paths)?;
        if !paths.is_empty() {
            guarded.guarded = paths;
        }
        Ok(guarded)
    }

    /// Lets these paths and all below them out, such as `/mcp/health`: requests to them pass untouched, if all readings
    /// of their path agree.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and on a path that is not below a guarded one or above one.
    #[must_use]
    #[track_caller]
    pub fn except(self, paths: impl IntoIterator<Item: Into<String>>) -> Self {
        match self.try_except(paths) {
            Ok(paths) => paths,
            Err(invalid) => panic!("{invalid}"),
        }
    }

    /// Lets these paths and all below them out, as [`except`](Self::except) does.
    ///
    /// # Errors
    ///
    /// On what [`except`](Self::except) panics on.
    pub fn try_except(
        mut self,
        paths: impl IntoIterator<Item: Into<String>>,
    ) -> Result<Self, InvalidPath> {
        for path in spellings(paths)? {
            let above = path.rfind('/').map(|end| &path.as_bytes()[..end]);
            if !above.is_some_and(|above| is_below_any(&self.guarded, above)) {
                return Err(InvalidPath::new(
                    &path,
                    "it is not below a guarded path",
                    "",
                ));
            }
            let is_above = |guarded: &String| is_below(&path, guarded.as_bytes());
            if self.guarded.iter().any(is_above) {
                return Err(InvalidPath::new(&path, "a guarded path is below it", ""));
            }
            self.exceptions.push(path);
        }
        Ok(self)
    }

    /// Whether some reader of this path arrives at a guarded one.
    #[inline]
    pub(crate) fn guards(&self, path: &str) -> bool {
        let path = path.as_bytes();
        let arrives = is_below_any(&self.guarded, path);
        match arrives && !is_below_any(&self.exceptions, path) {
            true => true,
            false => self.covers_otherwise(path, arrives),
        }
    }

    /// Whether another reading says what the first one does not. Nearly all paths are plain and have no other.
    #[inline(never)]
    fn covers_otherwise(&self, path: &[u8], is_excepted: bool) -> bool {
        !is_plain(path) && self.covers_odd(path, is_excepted)
    }

    #[cold]
    fn covers_odd(&self, path: &[u8], is_excepted: bool) -> bool {
        if is_excepted {
            let disagrees = |reading: &[u8]| !is_below_any(&self.exceptions, reading);
            return some_reading(path, |_| true, disagrees);
        }
        let arrives = |reading: &[u8]| is_below_any(&self.guarded, reading);
        some_reading(path, |reading| self.may_arrive(reading), arrives)
    }

    /// Whether the segments of a guarded path occur in this one, in their order, after decoding and splitting all that
    /// can be. Readings leave segments out, but add none and swap none. It spares nearly all odd paths the search.
    fn may_arrive(&self, path: &[u8]) -> bool {
        let path = decode_fully(path);
        self.guarded.iter().any(|guarded| {
            let guarded = decode_fully(guarded.as_bytes());
            let mut pieces = path.split(|byte| BREAKS.contains(byte));
            let mut segments = guarded.split(|byte| *byte == b'/').skip(1);
            segments.all(|segment| pieces.any(|piece| piece == segment))
        })
    }
}

impl Default for GuardedPaths {
    fn default() -> Self {
        Self {
            guarded: vec![String::new()],
            exceptions: Vec::new(),
        }
    }
}

impl<I: IntoIterator<Item: Into<String>>> From<I> for GuardedPaths {
    /// As [`GuardedPaths::new`], also in its panics.
    #[track_caller]
    fn from(paths: I) -> Self {
        Self::new(paths)
    }
}

#[inline]
fn is_below_any(paths: &[String], path: &[u8]) -> bool {
    paths.iter().any(|above| is_below(above, path))
}

/// At or below; `above` has no slash at its end.
#[inline]
fn is_below(above: &str, path: &[u8]) -> bool {
    // Looks at the border first: it tells most paths apart.
    matches!(path.get(above.len()), None | Some(b'/')) && path.starts_with(above.as_bytes())
        || above.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Much larger tables, and what axum makes of them, are in `tests/paths`.
    #[test]
    fn a_path_is_itself_and_all_below_in_any_reading() {
        let table = [
            ("/mcp", true),
            ("/mcp/", true),
            ("/mcp/x/y.z", true),
            ("/mcpx", false),
            ("/MCP", false),
            ("/x/mcp", false),
            ("/", false),
            ("", false),
            ("*", false),
            ("/.well-known/oauth-protected-resource/mcp", false),
            ("//mcp", true),
            ("/x/../mcp", true),
            ("/x\\..\\mcp", true),
            ("/mcp;v=1", true),
            ("/%6dcp", true),
            ("/%256dcp", true),
            ("/%25256dcp", false),
            ("/x%E9/../mcp", true),
            ("/x%zz/%2e%2e/mcp", true),
            ("/m%09cp%20%3Fx", true),
            ("/search/100%", false),
            ("/files/caf%E9.txt", false),
            ("/docs;v=1/mcp", false),
            ("/wiki/../docs/mcp", false),
        ];
        for paths in [["/mcp", "/a"], ["/a%20b", "/mcp/"]] {
            let paths = GuardedPaths::new(paths);
            for (path, expected) in table {
                assert_eq!(paths.guards(path), expected, "{path}");
            }
        }
        for paths in [&[][..], &["/"], &["/mcp", "/"]] {
            let paths = GuardedPaths::new(paths.iter().copied());
            assert!(table.iter().all(|(path, _)| paths.guards(path)));
        }
    }

    #[test]
    fn all_readers_have_to_let_a_path_out() {
        let table = [
            ("/mcp/health", false),
            ("/mcp/health/", false),
            ("/mcp/health/x%20y", false),
            ("/mcp", true),
            ("/mcp/healthy", true),
            ("/mcp/%68ealth", true),
            ("/mcp/health/../x", true),
            ("/mcp/health/%2e%2e/x", true),
            ("/mcp/health/..%252fx", true),
            ("/mcp/health/../../x", true),
        ];
        for paths in [["/mcp"], ["/"]] {
            let paths = GuardedPaths::new(paths).except(["/mcp/health"]);
            for (path, expected) in table {
                assert_eq!(paths.guards(path), expected, "{path}");
                assert!(paths.guards("/mcp"));
            }
        }
    }

    #[test]
    fn only_what_is_below_can_be_let_out() {
        for path in ["/mcp", "/", "/health", "mcp/x", "/mcp/a"] {
            let paths = GuardedPaths::new(["/mcp", "/mcp/a/b"]);
            paths.try_except(["/mcp/ok", path]).unwrap_err();
        }
    }

    #[test]
    #[should_panic(
        expected = r#"invalid path "mcp": it does not begin with a slash; write "/mcp""#
    )]
    fn a_wrong_entry_panics_at_set_up() {
        let _ = GuardedPaths::from(["mcp"]);
    }

    /// Paths that are as long as they get, and whose readings are endless.
    #[test]
    fn long_paths_are_cheap() {
        for part in ["25", "x/..;a/%2F/", "/%252e%252e", "%5C..%3B//"] {
            let path = format!(
                "/mcp/health/%{}/../mcp/x/../../..",
                part.repeat(60_000 / part.len())
            );
            let start = std::time::Instant::now();
            assert!(GuardedPaths::new(["/mcp"]).guards(&path));
            assert!(
                GuardedPaths::new(["/mcp"])
                    .except(["/mcp/health"])
                    .guards(&path)
            );
            assert!(!GuardedPaths::new(["/z"]).guards(&path));
            let odd = GuardedPaths::new(["/x/mcp/x", "/mcp/x/mcp/x"]);
            odd.guards(&path);
            assert!(
                start.elapsed() < std::time::Duration::from_secs(5),
                "{part}"
            );
        }
    }
}
