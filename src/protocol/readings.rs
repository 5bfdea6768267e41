//! How a path may be read.
//!
//! What stands between a client and a handler (proxies, routers, URL parsers) may decode a path, once or twice, and tidy
//! it, in any order. What comes of it is a *reading* of the path.

use std::{collections::HashSet, ops::RangeInclusive};

/// Whether nobody could read this path in another way than it is written: nothing to decode, merge, resolve or cut, and
/// none of the other slash.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        if IS_MARK[usize::from(*byte)] && (*byte != b'/' || is_odd_after_slash(after)) {
            return false;
        }
        rest = after;
    }
    true
}

fn is_odd_after_slash(rest: &[u8]) -> bool {
    matches!(rest, [b'/', ..] | [b'.'] | [b'.', b'/' | b'.', ..])
}

/// A table, for this is asked of every byte of every request elsewhere.
static IS_MARK: [bool; 256] = {
    let mut marks = [false; 256];
    let mut left: &[u8] = b"%;\\/";
    while let [mark, rest @ ..] = left {
        marks[*mark as usize] = true;
        left = rest;
    }
    marks
};

/// Whether one of the readings of a path is wanted. Those that are hopeless, and what would come of them, are left out.
///
/// Each is looked at once. Of a path with more readings than anybody writes by accident one counts as wanted: that
/// guards it.
pub(crate) fn some_reading(
    path: &[u8],
    is_hopeful: impl Fn(&[u8]) -> bool,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut seen = HashSet::new();
    let mut effort = 0;
    let mut readings = vec![path.to_vec()];
    for decodings in 0..=MAX_DECODINGS {
        let mut decoded = Vec::new();
        while let Some(reading) = readings.pop() {
            if seen.contains(&reading) || !is_hopeful(&reading) {
                continue;
            }
            effort += EFFORT_PER_READING + reading.len();
            if is_wanted(&reading) || effort > MAX_EFFORT {
                return true;
            }
            let tidied = TIDYINGS.iter().map(|tidy| tidy(&reading));
            readings.extend(tidied.filter(|tidied| *tidied != reading));
            if decodings < MAX_DECODINGS && reading.contains(&b'%') {
                decoded.extend([false, true].map(|slashes_stay| decode(&reading, slashes_stay)));
            }
            seen.insert(reading);
        }
        readings = decoded;
    }
    false
}

/// All that can be tidied, in one of the orders.
pub(crate) fn tidy(path: &[u8]) -> Vec<u8> {
    let tidied = path.to_vec();
    TIDYINGS.iter().fold(tidied, |path, tidy| tidy(&path))
}

type Tidying = fn(&[u8]) -> Vec<u8>;

/// What readers do to a path beside decoding.
const TIDYINGS: [Tidying; 7] = [
    merge_slashes,
    |path| resolve_dots(path, false),
    |path| resolve_dots(path, true),
    cut_parameters,
    turn_backslashes,
    cut_at_end,
    drop_blanks,
];

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|a, b| (*a, *b) == (b'/', b'/'));
    merged
}

/// With encoded ones, as URL parsers do, or without.
fn resolve_dots(path: &[u8], encoded: bool) -> Vec<u8> {
    let dots = |mut segment: &[u8]| {
        for dots in 0.. {
            segment = match segment {
                [b'.', rest @ ..] => rest,
                [b'%', b'2', b'e' | b'E', rest @ ..] if encoded => rest,
                [] => return dots,
                _ => break,
            };
        }
        0
    };
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match dots(segment) {
            1 => {}
            2 => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut segments = path.rsplit(|byte| *byte == b'/');
    if segments
        .next()
        .is_some_and(|last| matches!(dots(last), 1 | 2))
    {
        kept.push(b"");
    }
    let mut resolved = Vec::with_capacity(path.len() + 1);
    for segment in kept {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    resolved
}

/// Those of each segment.
fn cut_parameters(path: &[u8]) -> Vec<u8> {
    let mut is_parameter = false;
    let mut kept = path.to_vec();
    kept.retain(|byte| {
        is_parameter = *byte == b';' || is_parameter && *byte != b'/';
        !is_parameter
    });
    kept
}

fn turn_backslashes(path: &[u8]) -> Vec<u8> {
    let turn = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
    path.iter().map(turn).collect()
}

/// Where a path ends that was decoded and is parsed again: at a query, a fragment, or the end of a C string.
fn cut_at_end(path: &[u8]) -> Vec<u8> {
    let mut parts = path.split(|byte| b"?#\0".contains(byte));
    parts.next().unwrap_or_default().to_vec()
}

/// As URL parsers do: line breaks and tabs anywhere, others at the end.
fn drop_blanks(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| !BLANKS.contains(byte));
    let mut kept = path[..end.map_or(0, |last| last + 1)].to_vec();
    kept.retain(|byte| !b"\t\r\n".contains(byte));
    kept
}

/// Decodes once. What is no escape stays as it is; so does an encoded slash with readers that split before they decode.
pub(crate) fn decode(path: &[u8], slashes_stay: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        let (byte, length) = match escaped(after) {
            Some(byte) if rest[0] == b'%' && !(slashes_stay && byte == b'/') => (byte, 3),
            _ => (*byte, 1),
        };
        decoded.push(byte);
        rest = &rest[length..];
    }
    decoded
}

/// Decodes until nothing is left to decode, and drops blanks, in one pass: an escape is decoded as soon as its last
/// digit is there, and what comes of it may be the last digit of another one.
pub(crate) fn decode_fully(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path {
        decoded.push(*byte);
        while let [.., b'%', high, low] = decoded[..]
            && let Some(byte) = escaped(&[high, low])
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(byte);
        }
        decoded.pop_if(|byte| BLANKS.contains(byte));
    }
    decoded
}

/// The byte of an escape, by what follows its percent sign.
pub(crate) fn escaped(digits: &[u8]) -> Option<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    let [high, low, ..] = digits else { return None };
    u8::try_from(hex(*high)? << 4 | hex(*low)?).ok()
}

const MAX_DECODINGS: usize = 2;
/// In bytes of readings. The longest path that an HTTP server takes has 64 KiB.
const MAX_EFFORT: usize = 1 << 17;
const EFFORT_PER_READING: usize = 128;
/// What ends or splits a segment in some reading.
pub(crate) const BREAKS: &[u8] = b"/\\;?#\0";
/// But for the NUL, which is a break.
const BLANKS: RangeInclusive<u8> = 1..=b' ';
