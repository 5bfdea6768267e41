//! Signed session ids: on the wire an id carries a tag that proves whose it is. Everything inside has the id without it.

use std::{fmt, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use http::{HeaderValue, request::Parts};
use sha2::Sha256;

use crate::{protocol::SessionId, session::Owner};

/// The keys that session ids are signed with, for [`with_signed_ids`](crate::McpSessionLayer::with_signed_ids). Each is 32
/// random bytes, the same on all nodes.
///
/// One key signs; several may verify, so that a new one can take its place while sessions live. First all nodes know it,
/// then it signs, and the old one goes when no session of its time can be live any more:
///
/// ```
/// # use mcp_session_layer::SigningKeys;
/// # let (old, new) = ([1; 32], [2; 32]);
/// let before = SigningKeys::new(old);
/// let first = SigningKeys::new(old).add_verifying(new);
/// let then = SigningKeys::new(new).add_verifying(old);
/// let at_last = SigningKeys::new(new);
/// ```
#[derive(Clone)]
pub struct SigningKeys {
    signing: Key,
    verifying: Vec<Key>,
    signs_from: Option<SystemTime>,
    unsigned_until: Option<SystemTime>,
}

impl SigningKeys {
    /// Signs with this key, and believes what it has signed.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            signing: Key::new(key),
            verifying: Vec::new(),
            signs_from: None,
            unsigned_until: None,
        }
    }

    /// Believes what this key has signed, too.
    #[must_use]
    pub fn add_verifying(mut self, key: [u8; 32]) -> Self {
        self.verifying.push(Key::new(key));
        self
    }

    /// Lets sessions live on whose ids were not signed, until then by this machine's clock. Default: what carries no proof
    /// is refused.
    ///
    /// For the time in which signed ids are introduced. Until then an id without a tag opens its session as before: whoever
    /// leaves the tag out is not asked for it, and what is made up costs a look-up in the store.
    #[must_use]
    pub fn insecure_accept_unsigned_until(mut self, end: SystemTime) -> Self {
        self.unsigned_until = Some(end);
        self
    }

    /// Issues ids unsigned until then by this machine's clock, as long as
    /// [unsigned ones are accepted](Self::insecure_accept_unsigned_until) at all. Default: from the start.
    ///
    /// For nodes that do not know the keys yet: they would not find a signed id. Name a time when all nodes do.
    #[must_use]
    pub fn sign_from(mut self, start: SystemTime) -> Self {
        self.signs_from = Some(start);
        self
    }

    /// A new session's id as its client gets it.
    pub(super) fn header(&self, owner: &Owner, id: &SessionId) -> HeaderValue {
        let is_too_early = self.accepts_unsigned() && is_before(self.signs_from);
        if is_too_early {
            return id.to_header();
        }
        let tag = self.signing.mac(owner, id.as_bytes()).finalize();
        let tag = URL_SAFE_NO_PAD.encode(tag.into_bytes());
        let wire = format!("{}.{tag}", id.expose());
        let mut header = HeaderValue::try_from(wire).expect("an id and a tag are visible ASCII");
        header.set_sensitive(true);
        header
    }

    /// The id that a client sent, without its tag, if that proves that it was issued to one of these.
    ///
    /// Of an id that proves nothing all keys are tried, for all of these: how long that takes does not tell which was near.
    pub(super) fn verify(&self, wire: &[u8], owners: &[Owner]) -> Option<SessionId> {
        let proven = split(wire).filter(|(id, tag)| {
            let keys = std::iter::once(&self.signing).chain(&self.verifying);
            let mut macs = keys.flat_map(|key| owners.iter().map(|owner| key.mac(owner, id)));
            macs.any(|mac| mac.verify_slice(tag).is_ok())
        });
        match proven {
            Some((id, _)) => Some(SessionId::copied(id)),
            // It may be one whose end looks like a tag.
            None if self.accepts_unsigned() && wire.len() <= SessionId::MAX_LEN => {
                Some(SessionId::copied(wire))
            }
            None => None,
        }
    }

    fn accepts_unsigned(&self) -> bool {
        is_before(self.unsigned_until)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys")
            .field("verifying", &self.verifying.len())
            .field("signs_from", &self.signs_from)
            .field("unsigned_until", &self.unsigned_until)
            .finish_non_exhaustive()
    }
}

/// HMAC-SHA-256, keyed.
#[derive(Clone)]
struct Key(Hmac<Sha256>);

impl Key {
    fn new(key: [u8; 32]) -> Self {
        Self(Hmac::new_from_slice(&key).expect("a key may be of any length"))
    }

    /// Of whom an id was issued to, and the id. No two look alike: what varies in length says so first, and the id is last.
    fn mac(&self, owner: &Owner, id: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        let mut add = |text: &str| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        };
        add(PURPOSE);
        add(owner.scope.as_str());
        match &owner.principal {
            Some(principal) => {
                add("principal");
                add(principal.as_str());
            }
            None => add("anonymous"),
        }
        mac.update(id);
        mac
    }
}

/// The id as a request came with it.
#[derive(Clone)]
pub(super) struct WireId(pub(super) HeaderValue);

/// Whether a request's id is one that was verified: it has no tag any more.
pub(super) fn is_verified(parts: &Parts) -> bool {
    parts.extensions.get::<WireId>().is_some()
}

/// What a client sent without what looks like a tag, if it ends with that. Nothing is proven by it.
pub(super) fn without_tag(wire: &[u8]) -> &[u8] {
    split(wire).map_or(wire, |(id, _)| id)
}

/// An id and the tag at its end. An id may have dots of its own; a tag has one length and one spelling.
fn split(wire: &[u8]) -> Option<(&[u8], [u8; 32])> {
    let (rest, text) = wire.split_at_checked(wire.len().checked_sub(TAG)?)?;
    let (dot, id) = rest.split_last()?;
    let tag = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let is_signed = *dot == b'.' && (1..=SessionId::MAX_LEN).contains(&id.len());
    is_signed.then_some((id, tag))
}

/// Whether it is not that late yet.
fn is_before(end: Option<SystemTime>) -> bool {
    end.is_some_and(|end| SystemTime::now() < end)
}

/// Characters of a tag without its dot.
const TAG: usize = SessionId::TAG_LEN - 1;
/// What has been signed here means nothing elsewhere, and the other way round.
const PURPOSE: &str = "mcp-session-layer session id";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::{Principal, Scope};

    fn owner(scope: &str, principal: Option<&str>) -> Owner {
        Owner {
            scope: Scope::new(scope),
            principal: principal.map(Principal::new),
        }
    }

    fn texts(keys: &SigningKeys, owner: &Owner, id: &str) -> String {
        let header = keys.header(owner, &id.parse().unwrap());
        assert!(header.is_sensitive());
        header.to_str().unwrap().to_owned()
    }

    /// Texts that would be the same if they were only put one after the other.
    #[test]
    fn no_two_owners_and_ids_have_the_same_tag() {
        let keys = SigningKeys::new([7; 32]);
        let mut seen = Vec::new();
        for scope in ["", "a", "ab", "aanonymous", "anonymous"] {
            for principal in [
                None,
                Some(""),
                Some("a"),
                Some("b"),
                Some("ba"),
                Some("anonymous"),
            ] {
                for id in ["a", "b", "ba", "aa", "anonymous"] {
                    let wire = texts(&keys, &owner(scope, principal), id);
                    let tag = wire.strip_prefix(id).unwrap().to_owned();
                    assert!(!seen.contains(&tag), "{scope} {principal:?} {id}");
                    seen.push(tag);
                }
            }
        }
    }

    /// Sessions live on through an update. Computed by another implementation, Python's `hmac`.
    #[test]
    fn a_tag_does_not_change_from_version_to_version() {
        let keys = SigningKeys::new([7; 32]);
        let wire = texts(&keys, &owner("mcp", Some("alice")), "id");
        assert_eq!(wire, "id.bChhdBBsAgkStBT-8r0XyNcfD9M1EwjqSCM17Mvc5kw");
    }

    #[test]
    fn a_key_is_hidden() {
        let keys = SigningKeys::new([7; 32]).add_verifying([8; 32]);
        let shown = format!("{keys:?}");
        assert_eq!(
            shown,
            "SigningKeys { verifying: 1, signs_from: None, unsigned_until: None, .. }"
        );
    }

    proptest! {
        #[test]
        fn what_went_out_comes_back_and_nothing_near_it(
            id in "[!-~]{1,60}",
            dots in 0..3usize,
            at in any::<prop::sample::Index>(),
            byte in 0x21..=0x7Eu8,
        ) {
            let id = format!("{id}{}", ".".repeat(dots));
            let keys = SigningKeys::new([7; 32]);
            let owners = [owner("mcp", Some("alice"))];
            let wire = texts(&keys, &owners[0], &id);
            prop_assert_eq!(wire.len(), id.len() + SessionId::TAG_LEN);
            let back = keys.verify(wire.as_bytes(), &owners).unwrap();
            prop_assert_eq!(back.expose(), &*id);
            let mut near = wire.clone().into_bytes();
            let at = at.index(near.len());
            if near[at] != byte {
                near[at] = byte;
                prop_assert!(keys.verify(&near, &owners).is_none());
            }
            prop_assert!(keys.verify(&wire.as_bytes()[..at], &owners).is_none());
            prop_assert!(keys.verify(&wire.as_bytes()[at + 1..], &owners).is_none());
        }

        #[test]
        fn nothing_that_was_not_signed_is_believed(wire in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let keys = SigningKeys::new([7; 32]);
            prop_assert!(keys.verify(&wire, &[owner("mcp", None)]).is_none());
        }
    }
}
