//! Reading JSON strictly: all of it, and no key twice.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

/// Reads a text to its end, every value of it, and keeps nothing.
///
/// Values that are skipped unread, as [`RawValue`](serde_json::value::RawValue) does, may hold what another parser stumbles
/// over: a number out of range, half a surrogate pair, brackets too deep. So what matters is read with this first.
///
/// # Errors
///
/// What is wrong, in words for whoever sent it.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    if BYTE_ORDER_MARKS.iter().any(|mark| text.starts_with(mark)) {
        return Err("it begins with a byte order mark".to_owned());
    }
    match serde_json::from_slice(text) {
        Ok(Strict) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A value that was read. serde's own `IgnoredAny` is not one: serde_json skips it.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = members.next_entry::<String, Self>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key twice"));
            }
        }
        Ok(self)
    }
}

/// Of UTF-8 and of UTF-16. "Implementations MUST NOT add a byte order mark" (RFC 8259, 8.1).
const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        let table: [(&[u8], &str); 12] = [
            (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
            (b"\xff\xfe{\0}\0", "it begins with a byte order mark"),
            (b"\xfe\xff\0{\0}", "it begins with a byte order mark"),
            (b"{\0}\0", "key must be a string"),
            (b"", "EOF while parsing a value"),
            (b"{} {}", "trailing characters"),
            (b"[1e400]", "number out of range"),
            (br#"["\ud800"]"#, "unexpected end of hex escape"),
            (br#"["\u12"]"#, "invalid escape"),
            (b"[\"\xff\"]", "invalid unicode code point"),
            (br#"{"x":{"a":1,"\u0061":1}}"#, "a key twice"),
            (deep.as_bytes(), "recursion limit exceeded"),
        ];
        for (text, expected) in table {
            let error = check(text).unwrap_err();
            assert!(
                error.starts_with(expected),
                "{}: {error}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn what_is_right_is_read() {
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        for text in [
            " null ",
            "true",
            "-0",
            "18446744073709551616",
            "1e308",
            r#""\ud83d\ude00 \u0000""#,
            r#"[{"a":{"a":[]},"b":{"a":-1}}]"#,
            &deep,
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }
}
