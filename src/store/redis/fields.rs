//! What is kept of a session: its fields, and the names by which keys and indexes know it.

use std::time::Duration;

use ::redis::Cmd;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    protocol::{ClientInfo, SessionId, SessionRef},
    session::{Issuer, Owner, Principal, Scope, Session, SessionRecord, Values},
    store::{Found, StoreError, StoreErrorKind},
};

/// A session as the scripts answer it: now and its creation in microseconds, the end of its time and of its life in
/// milliseconds, scope, principal, issuer, the client's name and release, protocol version, values.
pub(super) type Row = (
    i64,
    i64,
    i64,
    Option<i64>,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
);

/// A row's record, its age, what is left of its time, and of its life.
pub(super) struct Times {
    pub(super) age: Duration,
    pub(super) idle_left: Duration,
    pub(super) life_left: Option<Duration>,
}

/// The fields of a session that the script does not write itself.
pub(super) fn write(command: &mut Cmd, record: &SessionRecord) {
    command
        .arg("s")
        .arg(record.owner.scope.as_str())
        .arg("p")
        .arg(principal_field(&record.owner))
        .arg("i")
        .arg(match record.issuer {
            Issuer::Inner => INNER,
            Issuer::Layer => LAYER,
        });
    if let Some(client) = &record.client {
        command
            .arg("n")
            .arg(&client.name)
            .arg("r")
            .arg(&client.version);
    }
    if let Some(version) = &record.protocol_version {
        command.arg("v").arg(version);
    }
    if let Some(params) = &record.initialize_params {
        command.arg("j").arg(params.as_ref());
    }
    if let Some(values) = record.values.to_bytes() {
        command.arg("w").arg(values);
    }
}

/// Reads a row. What nobody of us wrote is corrupt.
pub(super) fn read(row: Row, doing: &'static str) -> Result<(SessionRecord, Times), StoreError> {
    let (now, ends, created, life_ends, scope, principal, issuer, name, release, version, values) =
        row;
    let corrupt = || StoreError::new(StoreErrorKind::Corrupt, doing);
    let micros = |micros: i64| Duration::from_micros(micros.try_into().unwrap_or(0));
    let until = |end: i64| micros(end.saturating_mul(1000).saturating_sub(now));
    let principal = match principal.split_at_checked(1) {
        Some(("+", name)) => Some(Principal::new(name)),
        Some(("-", "")) => None,
        _ => return Err(corrupt()),
    };
    let owner = Owner {
        scope: Scope::new(scope),
        principal,
    };
    let issuer = match issuer.as_str() {
        INNER => Issuer::Inner,
        LAYER => Issuer::Layer,
        _ => return Err(corrupt()),
    };
    let record = SessionRecord {
        client: name
            .zip(release)
            .map(|(name, version)| ClientInfo { name, version }),
        protocol_version: version,
        values: Values::from_bytes(values.as_deref())
            .map_err(|error| corrupt().with_source(error))?,
        ..SessionRecord::new(owner, issuer)
    };
    let life_left = life_ends.map(until);
    let times = Times {
        age: micros(now.saturating_sub(created)),
        idle_left: until(ends).min(life_left.unwrap_or(Duration::MAX)),
        life_left,
    };
    Ok((record, times))
}

pub(super) fn found(
    id: &SessionId,
    row: Row,
    initialize_params: Option<Bytes>,
    doing: &'static str,
) -> Result<Found, StoreError> {
    let (mut record, times) = read(row, doing)?;
    record.initialize_params = initialize_params;
    Ok(Found {
        session: Session::new(id.clone(), record),
        age: times.age,
        idle_left: times.idle_left,
        life_left: times.life_left,
    })
}

/// The principal as it is kept: nobody is not the empty name.
pub(super) fn principal_field(owner: &Owner) -> String {
    match &owner.principal {
        Some(principal) => format!("+{principal}"),
        None => "-".to_owned(),
    }
}

/// The scope in the index: 16 digits.
pub(super) fn scope_key(scope: &Scope) -> String {
    hex(&Sha256::digest(scope.as_str())[..8])
}

/// The scope and the owner in the index: 32 digits. Short, so whoever reads the index compares the owner itself.
pub(super) fn filter(owner: &Owner) -> String {
    let principal = Sha256::digest(principal_field(owner));
    scope_key(&owner.scope) + &hex(&principal[..8])
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

pub(super) fn reference(hex: &str) -> Option<SessionRef> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(SessionRef::from_bytes(digest))
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const INNER: &str = "inner";
const LAYER: &str = "layer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_survives_being_written() {
        let reference_of_one = SessionId::issue().reference();
        let text = hex(reference_of_one.as_bytes());
        assert_eq!(reference(&text), Some(reference_of_one));
        for text in [&text[1..], &text.replace(&text[..1], "x"), &"é".repeat(32)] {
            assert_eq!(reference(text), None, "{text}");
        }
    }

    #[test]
    fn owners_do_not_look_alike() {
        let owner = |scope, principal: Option<&str>| Owner {
            scope: Scope::new(scope),
            principal: principal.map(Principal::new),
        };
        let owners = [
            owner("a", None),
            owner("a", Some("")),
            owner("a", Some("-")),
            owner("b", None),
            owner("", Some("a")),
        ];
        for one in &owners {
            for other in &owners {
                assert_eq!(filter(one) == filter(other), one == other);
            }
        }
    }
}
