//! The headers that sessions depend on, found in one pass over a head.

use http::{HeaderMap, HeaderName, HeaderValue};

// As text too: what it takes to compare with a `static` of this type is not known when compiling.
const SESSION_ID_NAME: &str = "mcp-session-id";
const PROTOCOL_VERSION_NAME: &str = "mcp-protocol-version";
const LAST_EVENT_ID_NAME: &str = "last-event-id";
const METHOD_NAME: &str = "mcp-method";

/// `Mcp-Session-Id`: carries the session id, in both directions (2025-11-25, transports, session management).
pub static SESSION_ID: HeaderName = HeaderName::from_static(SESSION_ID_NAME);
/// `MCP-Protocol-Version`: carries the protocol revision of a request (2025-06-18, transports, protocol version header).
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static(PROTOCOL_VERSION_NAME);
/// `Last-Event-ID`: asks for the rest of a stream. Bound to a session, so it goes where the session id goes.
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static(LAST_EVENT_ID_NAME);
/// `Mcp-Method`: the method of the message in a request's body (2026-07-28, Streamable HTTP, request headers). Says nothing
/// that is to be trusted of a request whose revision does not know it.
pub static METHOD: HeaderName = HeaderName::from_static(METHOD_NAME);
/// `Mcp-Name`: the tool, resource or prompt that a request is about (2026-07-28, Streamable HTTP, request headers).
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What a request's head says to this layer.
#[derive(Debug, Default)]
pub(crate) struct Head<'r> {
    pub(crate) id: Lines<'r>,
    pub(crate) version: Lines<'r>,
    pub(crate) host: Option<&'r HeaderValue>,
    pub(crate) has_last_event_id: bool,
    /// Whether a line names `initialize` as the method.
    pub(crate) is_initialize: bool,
    pub(crate) authorization: Lines<'r>,
    /// Of those that are usual besides `Authorization`.
    pub(crate) has_other_credentials: bool,
}

/// The lines of a header that should have one at most.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Lines<'r> {
    #[default]
    None,
    One(&'r HeaderValue),
    /// The session id is not a list (RFC 9110, 5.3), nor is the version.
    Many,
}

impl<'r> Lines<'r> {
    /// The line, if there is one.
    pub(crate) fn one(self) -> Option<&'r HeaderValue> {
        match self {
            Self::One(value) => Some(value),
            Self::None | Self::Many => None,
        }
    }

    fn add(&mut self, value: &'r HeaderValue) {
        *self = match self {
            Self::None => Self::One(value),
            _ => Self::Many,
        };
    }
}

impl<'r> Head<'r> {
    /// One pass instead of a look-up for each name: hashing a name costs as much as passing ten headers. The session
    /// id is marked as sensitive on the way.
    pub(crate) fn read(headers: &'r mut HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers.iter_mut() {
            let name = name.as_str();
            match name.len() {
                4 if name == "host" => head.host = head.host.or(Some(value)),
                10 if name == METHOD_NAME => head.is_initialize |= value == "initialize",
                6 if name == "cookie" => head.has_other_credentials = true,
                9 if name == "x-api-key" => head.has_other_credentials = true,
                13 if name == "authorization" => head.authorization.add(value),
                13 if name == LAST_EVENT_ID_NAME => head.has_last_event_id = true,
                14 if name == SESSION_ID_NAME => {
                    value.set_sensitive(true);
                    head.id.add(value);
                }
                19 if name == "proxy-authorization" => head.has_other_credentials = true,
                20 if name == PROTOCOL_VERSION_NAME => head.version.add(value),
                _ => {}
            }
        }
        head
    }
}

/// What an answer's head says to this layer.
#[derive(Debug, Default)]
pub(crate) struct AnswerHead {
    pub(crate) has_id: bool,
    pub(crate) is_event_stream: bool,
    pub(crate) is_plain_json: bool,
}

impl AnswerHead {
    #[inline]
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        match headers.is_empty() {
            true => Self::default(),
            false => Self::read_lines(headers),
        }
    }

    fn read_lines(headers: &HeaderMap) -> Self {
        let mut head = Self::default();
        let mut is_encoded = false;
        for (name, value) in headers {
            let name = name.as_str();
            match name.len() {
                12 if name == "content-type" => head.read_content_type(value.as_bytes()),
                14 if name == SESSION_ID_NAME => head.has_id = true,
                16 if name == "content-encoding" => is_encoded = true,
                _ => {}
            }
        }
        head.is_plain_json &= !is_encoded;
        head
    }

    fn read_content_type(&mut self, value: &[u8]) {
        match value {
            // Nearly always written like this.
            b"text/event-stream" => self.is_event_stream = true,
            b"application/json" => self.is_plain_json = true,
            other => {
                self.is_event_stream |= is_type(other, b"text/event-stream");
                self.is_plain_json |= is_type(other, b"application/json");
            }
        }
    }
}

/// Whether this is what stands before the parameters of a content type.
fn is_type(value: &[u8], expected: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next();
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_what_stands_before_its_parameters() {
        let mut headers = HeaderMap::new();
        assert!(!AnswerHead::read(&headers).is_plain_json);
        let json = "Application/JSON; charset=utf-8".parse().unwrap();
        headers.insert("content-type", json);
        assert!(AnswerHead::read(&headers).is_plain_json);
        headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(!AnswerHead::read(&headers).is_plain_json);
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        assert!(AnswerHead::read(&headers).is_event_stream);
    }

    #[test]
    fn lines_are_counted_and_ids_are_marked_as_sensitive() {
        let mut headers = HeaderMap::new();
        headers.append(&SESSION_ID, "a".parse().unwrap());
        headers.append("host", "x".parse().unwrap());
        assert!(matches!(Head::read(&mut headers).id, Lines::One(id) if id.is_sensitive()));
        headers.append(&SESSION_ID, "a".parse().unwrap());
        headers.append(&PROTOCOL_VERSION, "".parse().unwrap());
        headers.append(&LAST_EVENT_ID, "1".parse().unwrap());
        let head = Head::read(&mut headers);
        assert!(matches!(head.id, Lines::Many));
        assert!(matches!(head.version, Lines::One(_)));
        assert_eq!(head.host.unwrap(), "x");
        assert!(head.has_last_event_id);
        assert!(!head.is_initialize);
    }

    #[test]
    fn the_method_is_found_on_any_line() {
        let is_initialize = |methods: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for method in methods {
                headers.append(&METHOD, HeaderValue::from_static(method));
            }
            Head::read(&mut headers).is_initialize
        };
        assert!(is_initialize(&["initialize"]));
        assert!(is_initialize(&["initialize", "tools/list"]));
        assert!(is_initialize(&["tools/list", "initialize"]));
        assert!(!is_initialize(&["tools/list"]));
        assert!(!is_initialize(&["Initialize"]));
        assert!(!is_initialize(&["initialize, tools/list"]));
    }
}
