//! What an inner service's answer to a `ping` says of the session that it was asked on.

use serde::Deserialize;

use super::message::members;

/// An answer to a request with an id of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A result, or "method not found": whoever says so has found the session and looked at the request.
    Served,
    /// Another JSON-RPC error under the request's own id.
    Refused,
    /// Anything else.
    Other,
}

impl Reply {
    /// Reads a JSON body, or the data of an event.
    pub(crate) fn read(json: &[u8], id: &str) -> Self {
        let Some(members) = members(json) else {
            return Self::Other;
        };
        let own = |raw: &str| serde_json::from_str::<String>(raw).is_ok_and(|own| own == id);
        if !members.get("id").is_some_and(|raw| own(raw.get())) {
            return Self::Other;
        }
        match (members.get("result"), members.get("error")) {
            (Some(_), None) => Self::Served,
            (None, Some(error)) => match serde_json::from_str(error.get()) {
                Ok(Error {
                    code: METHOD_NOT_FOUND,
                }) => Self::Served,
                _ => Self::Refused,
            },
            _ => Self::Other,
        }
    }
}

/// Whether a 400 says that its service knows no such session, as servers of the TypeScript SDK do where others say 404: those
/// written as its examples are (1.x, `simpleStreamableHttp.ts`), as JSON to a POST and as text to others, and its transport
/// before it has seen an `initialize`.
pub(crate) fn denies_session(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    DENIALS.iter().any(|denial| body.contains(denial))
}

#[derive(Deserialize)]
struct Error {
    code: i64,
}

/// An event stream, as far as it has come: the data of its events (HTML, server-sent events, 9.2.6).
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    is_after_cr: bool,
}

impl Events {
    /// Takes what came next, and hands out the data of each event that is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        for byte in bytes {
            let is_after_cr = std::mem::replace(&mut self.is_after_cr, *byte == b'\r');
            match byte {
                b'\n' if is_after_cr => {}
                b'\n' | b'\r' => self.end_line(&mut event),
                other => self.line.push(*other),
            }
        }
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            if !self.data.is_empty() {
                event(&self.data);
            }
            self.data.clear();
        } else if let Some(data) = self.line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend(data.strip_prefix(b" ").unwrap_or(data));
        }
        self.line.clear();
    }
}

const DENIALS: [&str; 3] = [
    "No valid session ID provided",
    "Invalid or missing session ID",
    "Server not initialized",
];

/// JSON-RPC 2.0, 5.1.
const METHOD_NOT_FOUND: i64 = -32601;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reply_is() {
        let table = [
            (r#"{"jsonrpc":"2.0","id":"x","result":{}}"#, Reply::Served),
            (r#"{"id":"\u0078","result":null}"#, Reply::Served),
            (
                r#"{"id":"x","error":{"code":-32601,"message":""}}"#,
                Reply::Served,
            ),
            (
                r#"{"id":"x","error":{"code":-32603,"message":""}}"#,
                Reply::Refused,
            ),
            (r#"{"id":"x","error":{}}"#, Reply::Refused),
            (r#"{"id":"y","result":{}}"#, Reply::Other),
            (
                r#"{"id":null,"error":{"code":-32601,"message":""}}"#,
                Reply::Other,
            ),
            (
                r#"{"id":"x","result":{},"error":{"code":-32601}}"#,
                Reply::Other,
            ),
            (r#"{"id":"x","method":"ping"}"#, Reply::Other),
            (r#"[{"id":"x","result":{}}]"#, Reply::Other),
            ("Not Found", Reply::Other),
            ("", Reply::Other),
        ];
        for (body, expected) in table {
            assert_eq!(Reply::read(body.as_bytes(), "x"), expected, "{body}");
        }
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = ": hello\n\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":\ndata:1}\r\n\r\nretry: 5\rdata: b\r\rdata: half";
        for size in [1, 2, 3, stream.len()] {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in stream.as_bytes().chunks(size) {
                events.feed(piece, |data| {
                    seen.push(String::from_utf8(data.to_vec()).unwrap());
                });
            }
            assert_eq!(seen, ["{\"a\":\n1}", "b"], "in pieces of {size}");
        }
    }
}
