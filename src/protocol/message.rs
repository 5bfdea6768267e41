//! What a JSON-RPC body says, as far as sessions depend on it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json;

/// What a client calls itself (`clientInfo` of `initialize`). Chosen by the client: never trust it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientInfo {
    /// `clientInfo.name`.
    pub name: String,
    /// `clientInfo.version`.
    pub version: String,
}

/// A JSON object that is a JSON-RPC request or notification: its members as raw JSON.
pub(crate) struct Message<'a> {
    method: String,
    id: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads a body. `None` for JSON that is not a single message with a method: batches, responses, anything else.
    ///
    /// # Errors
    ///
    /// Why the body is not JSON. What one parser refuses another might take for something else, so it is read as a strict
    /// one reads it (serde_json's), and a key twice, at whatever depth, counts as an error: of two values another parser
    /// might take the other one.
    pub(crate) fn read(body: &'a [u8]) -> Result<Option<Self>, String> {
        json::check(body)?;
        Ok(Self::of(body))
    }

    fn of(body: &'a [u8]) -> Option<Self> {
        let members = members(body)?;
        Some(Self {
            method: serde_json::from_str(members.get("method")?.get()).ok()?,
            id: members.get("id").copied().filter(is_request_id),
            params: members.get("params").copied(),
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

    /// The protocol version that the message itself claims (2026-07-28, versioning). Only clients without sessions do so,
    /// whatever version they name, and the inner service owes them an answer. What is not a string is answered as JSON.
    pub(crate) fn claimed_version(&self) -> Option<String> {
        let params = members(self.params?.get().as_bytes())?;
        let meta = members(params.get("_meta")?.get().as_bytes())?;
        let version = meta.get("io.modelcontextprotocol/protocolVersion")?.get();
        let text = serde_json::from_str(version);
        Some(clipped(text.unwrap_or_else(|_| version.to_owned())))
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
    let mut kept = MAX_KEPT.min(text.len());
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    text.truncate(kept);
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
        let Some(members) = members(body) else {
            return Self::Other;
        };
        let named = members.get("id").is_some_and(is_request_id);
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

/// The members of a JSON object.
pub(super) fn members(json: &[u8]) -> Option<HashMap<String, &RawValue>> {
    serde_json::from_slice(json).ok()
}

const MAX_KEPT: usize = 256;

#[cfg(test)]
mod tests;
