//! Sessions by owner and reference, for people and programs that administer them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BoxFuture, EndReason, StoreError};
use crate::{
    protocol::SessionRef,
    session::{Owner, Scope, SessionRecord},
};

/// Lists, counts and ends sessions by owner and reference. None of it is on a request's path.
///
/// Used as an object, so its futures are boxed: `Box::pin(async move { .. })`.
pub trait Directory: Send + Sync {
    /// How many sessions are live.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Live sessions in the order of their references, at most `at_most` of those after `after`.
    ///
    /// To read the next page, pass the last reference of this one. A session that lives through the whole
    /// reading is listed exactly once.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>>;

    /// Ends one session of this scope and says whether it was live; else as
    /// [`delete`](super::SessionStore::delete).
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect.
    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Ends all these sessions and says how many were live. A creation of one that begins before this and is recorded
    /// after it is refused ([`Created::Revoked`](super::Created::Revoked)).
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether all are ended. Call it again.
    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;
}

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFilter {
    /// All sessions of a scope.
    Scope(Scope),
    /// All sessions of one owner in its scope.
    Owner(Owner),
}

impl SessionFilter {
    /// The scope in which the sessions are.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        match self {
            Self::Scope(scope) => scope,
            Self::Owner(owner) => &owner.scope,
        }
    }

    /// Whether a session of this owner is meant.
    #[must_use]
    pub fn includes(&self, owner: &Owner) -> bool {
        match self {
            Self::Scope(scope) => *scope == owner.scope,
            Self::Owner(filter) => filter == owner,
        }
    }
}

/// A live session as a directory lists it. With serde its times are seconds, as numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its public name.
    pub reference: SessionRef,
    /// What the store keeps of it, without the `initialize` parameters.
    pub record: SessionRecord,
    /// How long ago it was created.
    #[serde(with = "seconds")]
    pub age: Duration,
    /// How long it may still be idle.
    #[serde(with = "seconds")]
    pub idle_left: Duration,
    /// How long it may still live. `None`: no limit.
    #[serde(with = "seconds_if_any")]
    pub life_left: Option<Duration>,
}

mod seconds {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Duration;

    pub(super) fn serialize<S: Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}

mod seconds_if_any {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Duration;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.as_ref()
            .map(Duration::as_secs_f64)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        let time = seconds.map(Duration::try_from_secs_f64).transpose();
        time.map_err(D::Error::custom)
    }
}
