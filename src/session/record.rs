//! What a store keeps of a session besides its key and its times.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::{Owner, Values};
use crate::protocol::ClientInfo;

/// What a store keeps of a session besides its key and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whom the session belongs to.
    pub owner: Owner,
    /// Who made its id.
    pub issuer: Issuer,
    /// The client, as it named itself in `initialize`.
    pub client: Option<ClientInfo>,
    /// The protocol version that the client *requested* in `initialize`; the negotiated one may be lower.
    pub protocol_version: Option<String>,
    /// The `params` of `initialize` as raw JSON, if they are kept. [`touch`](crate::SessionStore::touch)
    /// need not return them, [`load`](crate::SessionStore::load) must.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub initialize_params: Option<Bytes>,
    /// Its named values. Not part of its serde form: they may be secrets.
    #[serde(skip)]
    pub values: Values,
}

impl SessionRecord {
    /// A record of which nothing but the owner and the issuer is known.
    #[must_use]
    pub fn new(owner: Owner, issuer: Issuer) -> Self {
        Self {
            owner,
            issuer,
            client: None,
            protocol_version: None,
            initialize_params: None,
            values: Values::default(),
        }
    }
}

/// Who made a session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issuer {
    /// The inner service: it knows the session by this id.
    Inner,
    /// This layer, because the inner service issued none.
    Layer,
}

/// The rest of a record as a session holds it: its texts in one piece of memory, since there may be a million.
pub(super) struct Details {
    /// The client's name, its version and the protocol version, one after the other.
    texts: Box<str>,
    name: Option<u32>,
    version: u32,
    has_protocol_version: bool,
    pub(super) issuer: Issuer,
    /// Seldom kept: a pointer while there are none.
    initialize_params: Option<Box<Bytes>>,
}

impl Details {
    pub(super) fn of(record: SessionRecord) -> Self {
        let has_protocol_version = record.protocol_version.is_some();
        let mut texts = String::new();
        let client = record.client.map(|client| {
            texts.reserve_exact(client.name.len() + client.version.len());
            texts.push_str(&client.name);
            texts.push_str(&client.version);
            (length(&client.name), length(&client.version))
        });
        if let Some(protocol_version) = record.protocol_version {
            texts.push_str(&protocol_version);
        }
        Self {
            texts: texts.into(),
            name: client.map(|(name, _)| name),
            version: client.map_or(0, |(_, version)| version),
            has_protocol_version,
            issuer: record.issuer,
            initialize_params: record.initialize_params.map(Box::new),
        }
    }

    pub(super) fn record(&self, owner: Owner, values: Values) -> SessionRecord {
        let (name, rest) = self.texts.split_at(self.name.unwrap_or(0) as usize);
        let (version, protocol_version) = rest.split_at(self.version as usize);
        SessionRecord {
            owner,
            issuer: self.issuer,
            client: self.name.map(|_| ClientInfo {
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            protocol_version: self
                .has_protocol_version
                .then(|| protocol_version.to_owned()),
            initialize_params: self.initialize_params.as_deref().cloned(),
            values,
        }
    }
}

/// # Panics
///
/// Beyond 4 GiB, which the layer clips long before.
fn length(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a client's name is short")
}

/// Raw JSON inside a string: serde knows bytes as a list of numbers.
mod as_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        raw: &Option<Bytes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = raw.as_deref().map(str::from_utf8).transpose();
        text.map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Bytes::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Scope;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let owner = Owner {
            scope: Scope::default(),
            principal: None,
        };
        let client = |name: &str, version: &str| {
            let (name, version) = (name.to_owned(), version.to_owned());
            Some(ClientInfo { name, version })
        };
        for client in [
            None,
            client("", ""),
            client("a", ""),
            client("", "b"),
            client("aé", "1"),
        ] {
            for version in [None, Some(""), Some("2025-11-25")] {
                for params in [None, Some(Bytes::new()), Some("{}".into())] {
                    let record = SessionRecord {
                        client: client.clone(),
                        protocol_version: version.map(str::to_owned),
                        initialize_params: params,
                        ..SessionRecord::new(owner.clone(), Issuer::Inner)
                    };
                    let details = Details::of(record.clone());
                    assert_eq!(details.record(owner.clone(), Values::default()), record);
                    let json = serde_json::to_string(&record).unwrap();
                    assert_eq!(
                        serde_json::from_str::<SessionRecord>(&json).unwrap(),
                        record
                    );
                }
            }
        }
    }
}
