//! The list of paths to guard: what can stand in it.

use std::fmt;

use crate::protocol::readings::{decode, escaped, tidy};

/// A path that cannot be guarded, or be an exception. It says why, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPath {
    path: String,
    why: &'static str,
    instead: String,
}

impl InvalidPath {
    pub(crate) fn new(path: &str, why: &'static str, instead: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            why,
            instead: instead.into(),
        }
    }
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid path {:?}: {}", self.path, self.why)?;
        match &*self.instead {
            "" => Ok(()),
            instead => write!(f, "; write {instead:?}"),
        }
    }
}

impl std::error::Error for InvalidPath {}

/// Paths as they are compared: without a slash at the end, as they are written, and decoded if that differs.
pub(crate) fn spellings(
    paths: impl IntoIterator<Item: Into<String>>,
) -> Result<Vec<String>, InvalidPath> {
    let mut spellings = Vec::new();
    for path in paths {
        let path = path.into();
        let decoded =
            check(&path).map_err(|(why, instead)| InvalidPath::new(&path, why, instead))?;
        let [path, decoded] = [&path, &decoded].map(|path| path.trim_end_matches('/').to_owned());
        if path != decoded {
            spellings.push(decoded);
        }
        spellings.push(path);
    }
    Ok(spellings)
}

/// A path as requests have it and as all readers read it alike, decoded. Otherwise why it is not, and what to write.
fn check(path: &str) -> Result<String, (&'static str, String)> {
    let err = |why, instead: &str| Err((why, instead.to_owned()));
    if path.is_empty() {
        return err("it is empty", "/");
    }
    if path.trim() != path {
        return err("it has blanks around it", path.trim());
    }
    if path.contains(char::is_control) {
        return err("it has control characters", "");
    }
    if !path.starts_with('/') {
        let Some((_, rest)) = path.split_once("://") else {
            return err("it does not begin with a slash", &format!("/{path}"));
        };
        let path = rest.find('/').map_or("/", |start| &rest[start..]);
        return err("it is a URL", path);
    }
    if let Some(end) = path.find(['?', '#', ';']) {
        let why = "a path ends before its query, fragment or parameters";
        return err(why, &path[..end]);
    }
    let is_pattern = |name: &str| name.starts_with([':', '*']) || name.contains(['{', '}']);
    if let Some(depth) = path.split('/').position(is_pattern) {
        let above: Vec<_> = path.split('/').take(depth).collect();
        return match above[..] {
            [_] => err("patterns are not matched; layer that route instead", ""),
            _ => err(
                "patterns are not matched, all below is meant",
                &above.join("/"),
            ),
        };
    }
    let is_foreign = |byte: &u8| !byte.is_ascii_graphic() || b"\"<>`".contains(byte);
    if path.bytes().any(|byte| is_foreign(&byte)) {
        let encode = |byte: u8| match is_foreign(&byte) {
            true => format!("%{byte:02X}"),
            false => char::from(byte).into(),
        };
        let encoded: String = path.bytes().map(encode).collect();
        return err("requests have it encoded", &encoded);
    }
    let mend = |after: &str| match escaped(after.as_bytes()) {
        Some(_) => format!("%{after}"),
        None => format!("%25{after}"),
    };
    let mut parts = path.split('%');
    let start = parts.next().unwrap_or_default();
    let mended = parts
        .map(mend)
        .fold(start.to_owned(), |path, part| path + &part);
    if mended != path {
        return err("a percent sign in it is no escape", &mended);
    }
    let Ok(decoded) = String::from_utf8(decode(path.as_bytes(), false)) else {
        return err("its escapes are not UTF-8", "");
    };
    if decode(decoded.as_bytes(), false) != decoded.as_bytes() {
        return err("it is encoded twice", &decoded);
    }
    let tidy = tidy(decoded.as_bytes());
    if tidy != decoded.as_bytes() || decoded.matches('/').count() != path.matches('/').count() {
        return err(
            "not everybody reads it like this",
            &String::from_utf8_lossy(&tidy),
        );
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_entries_are_told_what_is_right() {
        let table = [
            ("", "/"),
            ("mcp", "/mcp"),
            (" /mcp", "/mcp"),
            ("/mcp\n", "/mcp"),
            ("http://localhost:80/mcp", "/mcp"),
            ("http://localhost", "/"),
            ("/mcp?x", "/mcp"),
            ("/mcp#x", "/mcp"),
            ("/mcp;v=1", "/mcp"),
            ("/mcp/{*rest}", "/mcp"),
            ("/mcp/:id/x", "/mcp"),
            ("/mcp/v{n}", "/mcp"),
            ("/{tenant}/mcp", ""),
            ("/*", ""),
            ("/m\u{1}cp", ""),
            ("/a b", "/a%20b"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/100%", "/100%25"),
            ("/%zz%20%", "/%25zz%20%25"),
            ("/caf%e9", ""),
            ("/a%2520b", "/a%20b"),
            ("//mcp", "/mcp"),
            ("/./x/../mcp", "/mcp"),
            ("/a\\mcp", "/a/mcp"),
            ("/a%2Fmcp", "/a/mcp"),
            ("/%2e%2e/mcp", "/mcp"),
            ("/mcp%3Fx", "/mcp"),
            ("/mcp%20", "/mcp"),
        ];
        for (path, instead) in table {
            let invalid = spellings(["/x", path]).unwrap_err();
            assert_eq!(invalid.instead, instead, "{invalid}");
            assert!(invalid.to_string().contains(&format!("{path:?}")));
        }
        for path in [
            "/",
            "/mcp/",
            "/a%20b",
            "/100%25",
            "/~a.b-c_d/@me:x",
            "/v1/..x",
        ] {
            spellings([path]).unwrap();
        }
    }
}
