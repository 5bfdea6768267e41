//! Named values that a session carries from node to node.

use std::{collections::BTreeMap, error::Error, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Session;

/// Named values of a session, which its store keeps: a tenant, an upstream, a locale. At most
/// [`MAX_NAMES`](Self::MAX_NAMES) of them, of [`MAX_BYTES`](Self::MAX_BYTES) in all.
///
/// A session gets them when it is created: from the request, by
/// [`with_values`](crate::McpSessionLayer::with_values), or from the inner service, which puts them into the extensions of
/// its answer to `initialize`. [`Sessions::change`](crate::Sessions::change) changes them later. All nodes see the change:
/// at once where their store has a feed, otherwise with the next request.
///
/// A clone is a snapshot, and cheap. `Debug` shows no names and no values.
///
/// ```
/// use axum::{Json, response::{IntoResponse, Response}};
/// use mcp_session_layer::{Change, Session, Sessions, Values};
/// # use serde_json::{Value, json};
///
/// // An inner service that says where a session belongs, as it answers `initialize`.
/// async fn initialize() -> Result<Response, mcp_session_layer::ValuesTooLarge> {
///     let mut response = Json(json!({ "jsonrpc": "2.0", "id": 1, "result": {} })).into_response();
///     let values = Values::of([("tenant", "acme"), ("upstream", "eu-2"), ("locale", "de")])?;
///     response.extensions_mut().insert(values);
///     Ok(response)
/// }
///
/// // And what it knows of it ever after, on every node.
/// fn upstream_of(session: &Session) -> Option<String> {
///     session.values().get("upstream").map(str::to_owned)
/// }
///
/// async fn move_away(session: &Session, sessions: &Sessions) -> anyhow::Result<bool> {
///     // Of two that do this at once one moves it.
///     let change = Change::new().set("upstream", "eu-3").only_while("upstream", Some("eu-2"));
///     let values = sessions.change(session, &change).await?;
///     Ok(values.is_some_and(|values| change.holds(&values)))
/// }
/// ```
#[derive(Clone, Default)]
pub struct Values(Option<Arc<Kept>>);

/// As it is written to a store.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// Grows with each change, so that an old answer of a store does not undo a newer one.
    revision: u64,
    values: BTreeMap<String, String>,
}

impl Values {
    /// How many names a session may have.
    pub const MAX_NAMES: usize = 16;
    /// How many bytes its names and values may have in all.
    pub const MAX_BYTES: usize = 4096;

    /// These values, by their names.
    ///
    /// # Errors
    ///
    /// When they are too many or too long.
    pub fn of<N: Into<String>, V: Into<String>>(
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ValuesTooLarge> {
        let change = values
            .into_iter()
            .fold(Change::new(), |change, (name, value)| {
                change.set(name, value)
            });
        Ok(Self::default().changed(&change)?.unwrap_or_default())
    }

    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.values.get(name).map(String::as_str)
    }

    /// All names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.0.iter().flat_map(|kept| &kept.values);
        values.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What becomes of them by this change; `None` if it changes nothing, or they are not those that it is made for. For
    /// stores, which do this and keep the result in one step.
    ///
    /// # Errors
    ///
    /// When there would be too many, or too long ones.
    pub fn changed(&self, change: &Change) -> Result<Option<Self>, ValuesTooLarge> {
        let stands = |(name, value): (&String, &Option<String>)| self.get(name) == value.as_deref();
        if !change.only_while.iter().all(stands) || change.holds(self) {
            return Ok(None);
        }
        let mut kept = match &self.0 {
            Some(kept) => Kept::clone(kept),
            None => Kept {
                format: FORMAT,
                revision: 0,
                values: BTreeMap::new(),
            },
        };
        kept.revision += 1;
        for (name, value) in &change.values {
            match value {
                Some(value) => kept.values.insert(name.clone(), value.clone()),
                None => kept.values.remove(name),
            };
        }
        let bytes = kept
            .values
            .iter()
            .map(|(name, value)| name.len() + value.len());
        if kept.values.len() > Self::MAX_NAMES || bytes.sum::<usize>() > Self::MAX_BYTES {
            return Err(ValuesTooLarge);
        }
        Ok(Some(Self(Some(Arc::new(kept)))))
    }

    /// As a store keeps them; `None` if a session never had any.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let kept = self.0.as_deref()?;
        Some(serde_json::to_vec(kept).expect("texts and numbers are JSON"))
    }

    /// What a store kept. Nothing is none.
    ///
    /// # Errors
    ///
    /// When it is not what [`to_bytes`](Self::to_bytes) made, in this version of the crate or an older one.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        let kept: Kept = serde_json::from_slice(bytes)?;
        if kept.format > FORMAT {
            return Err("a newer version of this crate has written it".into());
        }
        Ok(Self(Some(Arc::new(kept))))
    }

    /// These with the others, whose value counts where both have one.
    pub(crate) fn with(&self, others: Option<&Self>) -> Result<Self, ValuesTooLarge> {
        let Some(others) = others else {
            return Ok(self.clone());
        };
        Self::of(self.iter().chain(others.iter()))
    }

    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let revision = |values: &Self| values.0.as_ref().map_or(0, |kept| kept.revision);
        revision(self) < revision(other)
    }
}

/// As [`to_bytes`](Values::to_bytes) writes them; nothing of what `Debug` hides is hidden.
impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.map(Arc::new)))
    }
}

/// Equal are the same values under the same names.
impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Values {}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({})", self.len())
    }
}

impl Session {
    /// Its named values as they are now: a snapshot, which a change leaves as it is.
    #[must_use]
    pub fn values(&self) -> Values {
        self.0.attached.lock().values.clone()
    }

    /// Takes over the values of another handle of the same session, unless they are older.
    pub(crate) fn note_values(&self, other: &Self) {
        if self.is(other) {
            return;
        }
        let values = other.values();
        let mut attached = self.0.attached.lock();
        if attached.values.is_older_than(&values) {
            attached.values = values;
        }
    }

    /// Changes its values, and says whether anything is other than before.
    pub(crate) fn change_values(&self, change: &Change) -> Result<bool, ValuesTooLarge> {
        let mut attached = self.0.attached.lock();
        let changed = attached.values.changed(change)?;
        Ok(changed.map(|values| attached.values = values).is_some())
    }
}

/// A change of a session's [`Values`], which takes place as a whole or not at all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Change {
    values: BTreeMap<String, Option<String>>,
    only_while: BTreeMap<String, Option<String>>,
}

impl Change {
    /// One that changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of this name.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(name.into(), Some(value.into()));
        self
    }

    /// Removes the value of this name.
    #[must_use]
    pub fn remove(mut self, name: impl Into<String>) -> Self {
        self.values.insert(name.into(), None);
        self
    }

    /// Changes nothing unless this name has this value, or none.
    #[must_use]
    pub fn only_while(mut self, name: impl Into<String>, value: Option<&str>) -> Self {
        let value = value.map(str::to_owned);
        self.only_while.insert(name.into(), value);
        self
    }

    /// Whether these values are as this change makes them.
    #[must_use]
    pub fn holds(&self, values: &Values) -> bool {
        self.values
            .iter()
            .all(|(name, value)| values.get(name) == value.as_deref())
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").finish_non_exhaustive()
    }
}

/// A session can have [`Values::MAX_NAMES`] values, of [`Values::MAX_BYTES`] in all, names included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValuesTooLarge;

impl fmt::Display for ValuesTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, bytes) = (Values::MAX_NAMES, Values::MAX_BYTES);
        write!(
            f,
            "a session has at most {names} values, of {bytes} bytes with their names"
        )
    }
}

impl Error for ValuesTooLarge {}

/// The newest form that this version reads, and the one that it writes.
const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_as_they_were_kept() {
        for values in [
            Values::default(),
            Values::of([("", "")]).unwrap(),
            Values::of([("a\0\"", "é"), ("b", "")]).unwrap(),
        ] {
            let bytes = values.to_bytes();
            assert_eq!(bytes.is_none(), values.is_empty());
            assert_eq!(Values::from_bytes(bytes.as_deref()).unwrap(), values);
        }
        let newer = br#"{"format":2,"revision":1,"values":{}}"#;
        for bytes in [&newer[..], b"", b"{}", b"[]"] {
            assert!(Values::from_bytes(Some(bytes)).is_err());
        }
    }

    #[test]
    fn they_are_bounded() {
        let names = |number: usize| (0..number).map(|nth| (nth.to_string(), ""));
        assert_eq!(Values::of(names(16)).unwrap().len(), 16);
        assert_eq!(Values::of(names(17)), Err(ValuesTooLarge));
        let long = "x".repeat(Values::MAX_BYTES - 1);
        let full = Values::of([("a", long)]).unwrap();
        let more = Change::new().set("b", "");
        assert_eq!(full.changed(&more), Err(ValuesTooLarge));
        let other = more.remove("a");
        assert_eq!(full.changed(&other).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn they_show_nothing() {
        let values = Values::of([("tenant", "acme")]).unwrap();
        let change = Change::new().set("tenant", "acme");
        let shown = format!("{values:?} {change:?}");
        assert!(!shown.contains("tenant") && !shown.contains("acme"));
        assert_eq!(size_of::<Values>(), 8);
    }
}
