//! What a JSON-RPC body says, as far as sessions depend on it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Era;

/// What a client calls itself (`clientInfo` of `initialize`). Chosen by the client: never trust it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientInfo {
    /// `clientInfo.name`.
    pub name: String,
    /// `clientInfo.version`.
    pub version: String,
}

/// A JSON object that is a JSON-RPC request or notification: its members as raw JSON.
///
/// An object with a key twice is not one: another parser might take the other value.
pub(crate) struct Message<'a> {
    method: String,
    id: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads a body. `None` for what is not a single message with a method: batches, responses, other JSON, no JSON.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let members = Members::read(body)?;
        Some(Self {
            method: serde_json::from_str(members.get("method")?.get()).ok()?,
            id: members.get("id").filter(is_request_id),
            params: members.get("params"),
        })
    }

    /// The `id` of a request, as it was sent. A notification has none.
    pub(crate) fn request_id(&self) -> Option<&'a RawValue> {
        self.id
    }

    /// Whether this is an `initialize` *request* (2025-11-25, lifecycle).
    pub(crate) fn is_initialize(&self) -> bool {
        self.method == "initialize" && self.id.is_some()
    }

    /// Whether the message itself claims a revision without sessions (2026-07-28, versioning): then the inner
    /// service must judge it, whatever the headers said.
    pub(crate) fn is_modern(&self) -> bool {
        let version = || {
            let params = Members::read(self.params?.get().as_bytes())?;
            let meta = Members::read(params.get("_meta")?.get().as_bytes())?;
            let version = meta.get("io.modelcontextprotocol/protocolVersion")?;
            serde_json::from_str::<String>(version.get()).ok()
        };
        version().is_some_and(|version| Era::of_version(version.as_bytes()) == Era::Modern)
    }

    /// The `params`, as they were sent.
    pub(crate) fn params(&self) -> Option<&'a RawValue> {
        self.params
    }

    /// What an `initialize` request says of its client and the protocol version it would like.
    pub(crate) fn introduction(&self) -> (Option<ClientInfo>, Option<String>) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params {
            protocol_version: Option<String>,
            client_info: Option<Client>,
        }
        #[derive(Deserialize)]
        struct Client {
            #[serde(default)]
            name: String,
            #[serde(default)]
            version: String,
        }
        let params = self
            .params
            .and_then(|params| serde_json::from_str::<Params>(params.get()).ok());
        let Some(params) = params else {
            return (None, None);
        };
        let client = params.client_info.map(|client| ClientInfo {
            name: clipped(client.name),
            version: clipped(client.version),
        });
        (client, params.protocol_version.map(clipped))
    }
}

/// As much of a text as is kept of every session, so that the memory of a session has a bound.
fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_KEPT));
    text.shrink_to_fit();
    text
}

/// What a JSON body answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A JSON-RPC result.
    Result,
    /// A JSON-RPC error that names the request it answers.
    Error,
    /// A JSON-RPC error without a request's id.
    AnonymousError,
    /// Nothing that can be read to its end.
    Broken,
    /// Anything else.
    Other,
}

impl Answer {
    /// Reads a body.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Some(members) = Members::read(body) else {
            return Self::Other;
        };
        let named = members.get("id").is_some_and(|id| is_request_id(&id));
        match (members.get("result"), members.get("error")) {
            (Some(_), None) if named => Self::Result,
            (None, Some(_)) if named => Self::Error,
            (None, Some(_)) => Self::AnonymousError,
            _ => Self::Other,
        }
    }
}

/// A request's `id` is a string or a number, never `null` (2025-11-25, base protocol).
fn is_request_id(id: &&RawValue) -> bool {
    id.get()
        .starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

/// The members of a JSON object, each key once.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    fn get(&self, key: &str) -> Option<&'a RawValue> {
        let member = self.0.iter().find(|(name, _)| name == key)?;
        Some(member.1)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with at most 64 members, each key once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    // The search is quadratic, so the number is bounded. JSON-RPC has four members.
                    if members.len() == MAX_MEMBERS || members.iter().any(|(name, _)| *name == key)
                    {
                        return Err(serde::de::Error::custom("too many members, or one twice"));
                    }
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

const MAX_MEMBERS: usize = 64;
const MAX_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

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
            r#"{"method":"initialize","method":"ping","id":1}"#,
            r#"{"method":"initialize","m\u0065thod":"ping","id":1}"#,
            r#"{"method":"initialize","id":1,"x":1,"x":2}"#,
            r#"{"method":"initialize","id":1} {}"#,
        ];
        let is = |body: &str| Message::read(body.as_bytes()).is_some_and(|m| m.is_initialize());
        for body in yes {
            assert!(is(body), "{body}");
        }
        for body in no {
            assert!(!is(body), "{body}");
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
            let message = Message::read(body.as_bytes()).unwrap();
            assert_eq!(message.request_id().unwrap().get(), id);
        }
    }

    #[test]
    fn a_message_can_claim_a_revision_without_sessions() {
        let with = |version: &str| {
            let body = format!(
                r#"{{"method":"ping","id":1,"params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version}}}}}}}"#
            );
            Message::read(body.as_bytes()).unwrap().is_modern()
        };
        assert!(with(r#""2026-07-28""#));
        assert!(with(r#""2030-01-01""#));
        assert!(!with(r#""2025-11-25""#));
        assert!(!with(r#""banana""#));
        assert!(!with("20260728"));
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
}
