//! A session's id, which is a secret, and its reference, which is not.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// The value of an `Mcp-Session-Id` header: 1 to 1024 visible ASCII characters (0x21 to 0x7E).
///
/// Whoever knows an id can use its session, so it is treated like a password: [`Debug`](fmt::Debug) hides
/// it, there is no `Display`, and reading it takes a call to [`expose`](Self::expose) that a reviewer can
/// search for. Name a session by its [`SessionRef`] everywhere else.
///
/// The alphabet is the specification's (2025-11-25, transports, session management); the length is ours,
/// because the specification sets none and memory is finite.
#[derive(Clone)]
pub struct SessionId(Repr);

/// Most ids are a UUID or shorter; they need no allocation of their own.
#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Boxed(Box<[u8]>),
}

const INLINE: usize = 38;

impl SessionId {
    /// The longest id in bytes that is accepted or looked up.
    pub const MAX_LEN: usize = 1024;

    /// What a tag adds to an id on the wire: a dot, and 32 bytes in base64url.
    pub(crate) const TAG_LEN: usize = 1 + 43;

    /// Makes a new id with 122 random bits (UUID version 4).
    #[must_use]
    pub fn issue() -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        Self::copied(text.as_bytes())
    }

    /// Takes a header's value as an id. The id is a copy: it keeps no connection's buffer alive.
    ///
    /// # Errors
    ///
    /// When the value is empty, longer than [`MAX_LEN`](Self::MAX_LEN), or holds a byte outside 0x21 to 0x7E.
    pub fn from_header(value: &HeaderValue) -> Result<Self, InvalidSessionId> {
        match is_well_formed(value.as_bytes()) {
            true => Ok(Self::copied(value.as_bytes())),
            false => Err(InvalidSessionId),
        }
    }

    /// Copies what is known to be [well-formed](is_well_formed).
    pub(crate) fn copied(id: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        Self(match bytes.get_mut(..id.len()) {
            Some(start) => {
                start.copy_from_slice(id);
                let len = id.len() as u8;
                Repr::Inline { len, bytes }
            }
            None => Repr::Boxed(id.into()),
        })
    }

    /// The id itself. It is a secret: keep it out of logs, URLs and error messages.
    #[must_use]
    pub fn expose(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("an id is visible ASCII")
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Boxed(bytes) => bytes,
        }
    }

    /// The id as a header's value, marked sensitive.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_bytes(self.as_bytes()).expect("an id is visible ASCII");
        value.set_sensitive(true);
        value
    }

    /// The public name of the session that this id opens.
    #[must_use]
    pub fn reference(&self) -> SessionRef {
        SessionRef(Sha256::digest(self.as_bytes()).into())
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.as_bytes());
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(hidden)")
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        match is_well_formed(text.as_bytes()) {
            true => Ok(Self::copied(text.as_bytes())),
            false => Err(InvalidSessionId),
        }
    }
}

/// The public name of a session: the SHA-256 of its id, written in base64url (43 characters).
///
/// It names a session in logs, lists, events and admin calls, and is the key of a row in a shared store.
/// It cannot be turned back into the id, and the server never accepts it in place of one.
///
/// With serde it is its text, so that `Path<SessionRef>` is an argument of an axum handler. A [`SessionId`] is a secret and
/// has no serde.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef([u8; 32]);

impl SessionRef {
    /// The 32 bytes of the digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the 32 bytes of a digest, as a store kept them.
    #[must_use]
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 43];
        let written = URL_SAFE_NO_PAD
            .encode_slice(self.0, &mut text)
            .map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionRef({self})")
    }
}

impl FromStr for SessionRef {
    type Err = InvalidSessionRef;

    fn from_str(text: &str) -> Result<Self, InvalidSessionRef> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| InvalidSessionRef)?;
        bytes.try_into().map(Self).map_err(|_| InvalidSessionRef)
    }
}

/// As it is written.
impl Serialize for SessionRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Not an id: empty, too long, or with a character that an id must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSessionId;

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id is 1 to 1024 visible ASCII characters")
    }
}

impl std::error::Error for InvalidSessionId {}

/// Not a reference: anything but 43 characters of unpadded base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSessionRef;

impl fmt::Display for InvalidSessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session reference is 43 characters of base64url")
    }
}

impl std::error::Error for InvalidSessionRef {}

/// Whether these bytes can be an id.
#[inline]
pub(crate) fn is_well_formed(bytes: &[u8]) -> bool {
    // A UUID, as most ids are: two halves that overlap need no loop, and no rest that is looked at byte by byte.
    if let 32..=64 = bytes.len()
        && let (Some(first), Some(last)) = (bytes.first_chunk::<32>(), bytes.last_chunk::<32>())
    {
        return are_visible(first) && are_visible(last);
    }
    (1..=SessionId::MAX_LEN).contains(&bytes.len()) && are_visible(bytes)
}

/// Whether these bytes can be an id with a tag.
pub(crate) fn is_well_formed_signed(bytes: &[u8]) -> bool {
    (1..=SessionId::MAX_LEN + SessionId::TAG_LEN).contains(&bytes.len()) && are_visible(bytes)
}

/// A sum without an early exit, which the compiler turns into vector code.
#[inline]
fn are_visible(bytes: &[u8]) -> bool {
    let outside = |byte: &u8| u8::from(byte.wrapping_sub(0x21) > 0x7E - 0x21);
    bytes.iter().fold(0, |bad, byte| bad | outside(byte)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_is_what_the_specification_says(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x21..=0x7Eu8, 0x21..=0x7Eu8], 0..50)) {
            let visible = !bytes.is_empty() && bytes.iter().all(|b| (0x21..=0x7E).contains(b));
            prop_assert_eq!(is_well_formed(&bytes), visible);
            if visible {
                let id = SessionId::copied(&bytes);
                prop_assert_eq!(id.as_bytes(), &bytes);
                prop_assert_eq!(SessionId::from_header(&id.to_header()), Ok(id));
            }
        }

        #[test]
        fn a_reference_survives_being_written(digest: [u8; 32]) {
            let reference = SessionRef::from_bytes(digest);
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }

    #[test]
    fn every_byte_of_an_id() {
        for byte in 0..=u8::MAX {
            for at in [0, 16, 35] {
                let mut id = *b"3f0c6a52-6a0e-4a0e-9d52-0e6f5f1c8a11";
                id[at] = byte;
                assert_eq!(
                    is_well_formed(&id),
                    byte.is_ascii_graphic(),
                    "byte {byte:#04x} at {at}"
                );
            }
        }
        assert!(!is_well_formed(b""));
    }

    #[test]
    fn the_length_has_a_bound() {
        assert!("a".repeat(1024).parse::<SessionId>().is_ok());
        assert!("a".repeat(1025).parse::<SessionId>().is_err());
        assert!("".parse::<SessionId>().is_err());
    }

    #[test]
    fn debug_hides_the_id() {
        let id = SessionId::issue();
        assert!(!format!("{id:?} {:?}", id.to_header()).contains(id.expose()));
    }

    #[test]
    fn a_reference_is_the_sha_256_of_the_id() {
        let id: SessionId = "abc".parse().unwrap();
        assert_eq!(
            id.reference().to_string(),
            "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
        );
        assert!("abc".parse::<SessionRef>().is_err());
    }
}
