//! Which rules of sessions a protocol version brings with it.

use http::HeaderValue;

/// Which rules of sessions a request's protocol version brings with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Without sessions: 2026-07-28 and later dates, known or not.
    Modern,
    /// With sessions: earlier dates, and no version at all ("SHOULD assume protocol version
    /// 2025-03-26").
    Legacy,
    /// Not a revision of the protocol.
    Unknown,
}

impl Era {
    /// The era of a request with this protocol version.
    pub(crate) fn of(version: Option<&HeaderValue>) -> Self {
        version.map_or(Self::Legacy, |version| Self::of_version(version.as_bytes()))
    }

    /// For logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
            Self::Unknown => "unknown",
        }
    }

    /// The era of this protocol version.
    pub(crate) fn of_version(version: &[u8]) -> Self {
        match version {
            date if !is_date(date) => Self::Unknown,
            // Dates of one shape are in the order of their bytes.
            date if date < FIRST_MODERN => Self::Legacy,
            _ => Self::Modern,
        }
    }
}

/// `NNNN-NN-NN`. Whether the calendar has such a day decides nothing.
fn is_date(version: &[u8]) -> bool {
    version.len() == FIRST_MODERN.len()
        && version.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// The first revision without sessions.
const FIRST_MODERN: &[u8] = b"2026-07-28";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras() {
        assert_eq!(Era::of(None), Era::Legacy);
        let table: &[(&[u8], Era)] = &[
            (b"2024-11-05", Era::Legacy),
            (b"2025-03-26", Era::Legacy),
            (b"2025-06-18", Era::Legacy),
            (b"2025-11-25", Era::Legacy),
            (b"1999-01-01", Era::Legacy),
            (b"2026-07-27", Era::Legacy),
            (b"2026-07-28", Era::Modern),
            (b"2026-10-01", Era::Modern),
            (b"2027-01-01", Era::Modern),
            (b"", Era::Unknown),
            (b" ", Era::Unknown),
            (b" 2026-07-28", Era::Unknown),
            (b"2026-07-28 ", Era::Unknown),
            (b"2026-7-28", Era::Unknown),
            (b"20260728", Era::Unknown),
            (b"2026/07/28", Era::Unknown),
            (b"2026-07-2x", Era::Unknown),
            (b"2O26-07-28", Era::Unknown),
            (b"-026-07-28", Era::Unknown),
            (b"12026-07-28", Era::Unknown),
            (b"2026-07-28-rc", Era::Unknown),
            (b"DRAFT-2026", Era::Unknown),
            (b"v999.0.0", Era::Unknown),
            (b"banana", Era::Unknown),
            ("\u{662}026-07-2".as_bytes(), Era::Unknown),
            (b"\xff026-07-28", Era::Unknown),
        ];
        for (version, era) in table {
            assert_eq!(
                Era::of(Some(&HeaderValue::from_bytes(version).unwrap())),
                *era,
                "{}",
                version.escape_ascii()
            );
        }
    }
}
