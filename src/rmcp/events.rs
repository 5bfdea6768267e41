//! Event ids that say which session they are of.
//!
//! An event id goes out with a tag behind its last dot: the kind of its stream, the session, and a proof. Without an event
//! store an id means something to this incarnation of the session only, so the proof is a name for that. With one, rmcp looks
//! at the id alone, whoever asks: then the proof is a keyed digest that nobody makes up from an id that they guessed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::protocol::SessionRef;

/// Which kind of stream an event is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A GET stream.
    Standalone,
    /// The answer to a request.
    Answer,
}

/// What a `Last-Event-ID` opens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opens<'e> {
    /// What came after this event.
    Rest { event: &'e str, kind: Kind },
    /// The session's own GET stream, from now on: what came before is not to be had.
    Anew,
    /// Nothing.
    Nothing,
}

/// A key for event ids.
#[derive(Clone)]
pub(super) struct EventKey(Hmac<Sha256>);

impl EventKey {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("a key may be of any length"))
    }

    /// Of this process alone.
    pub(super) fn random() -> Self {
        let halves = [Uuid::new_v4(), Uuid::new_v4()];
        Self::new(halves.map(Uuid::into_bytes).as_flattened())
    }

    fn digest(&self, session: &SessionRef, kind: Kind, event: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // Nothing before the event varies in length.
        mac.update(session.to_string().as_bytes());
        mac.update(&[kind.letter()]);
        mac.update(event.as_bytes());
        mac
    }
}

/// Names the events of one session.
pub(super) struct Tagger {
    session: SessionRef,
    proof: Proof,
}

enum Proof {
    /// Of this incarnation of the session.
    Incarnation(Box<str>),
    Key(EventKey),
}

impl Tagger {
    /// For a session whose events are kept in memory, and go with it.
    pub(super) fn of_incarnation(session: SessionRef) -> Self {
        let name = URL_SAFE_NO_PAD.encode(&Uuid::new_v4().as_bytes()[..NAME]);
        Self {
            session,
            proof: Proof::Incarnation(name.into()),
        }
    }

    /// For a session whose events are kept elsewhere, among those of others.
    pub(super) fn with_key(session: SessionRef, key: EventKey) -> Self {
        Self {
            session,
            proof: Proof::Key(key),
        }
    }

    /// The id under which an event goes out.
    pub(super) fn tag(&self, kind: Kind, event: &str) -> String {
        let session = self.session.to_string();
        let proof = match &self.proof {
            Proof::Incarnation(name) => name.to_string(),
            Proof::Key(key) => {
                let digest = key.digest(&self.session, kind, event).finalize();
                URL_SAFE_NO_PAD.encode(&digest.into_bytes()[..DIGEST])
            }
        };
        let letter = char::from(kind.letter());
        format!("{event}.{letter}{}{proof}", &session[..SESSION])
    }

    /// What the id that a client sends opens on this session.
    pub(super) fn read<'e>(&self, id: &'e str) -> Opens<'e> {
        let opens = self.read_tagged(id);
        // rmcp itself sends this one ahead of a stream: nothing has come yet.
        let is_rmcps = id == BEFORE_ALL && matches!(self.proof, Proof::Incarnation(_));
        match opens {
            None if is_rmcps => Opens::Anew,
            opens => opens.unwrap_or(Opens::Nothing),
        }
    }

    fn read_tagged<'e>(&self, id: &'e str) -> Option<Opens<'e>> {
        let (event, tag) = id.rsplit_once('.')?;
        let (kind, rest) = tag.split_at_checked(1)?;
        let kind = Kind::of(kind)?;
        let (session, proof) = rest.split_at_checked(SESSION)?;
        if session != &self.session.to_string()[..SESSION] {
            return None;
        }
        let is_proven = match &self.proof {
            Proof::Incarnation(name) => **name == *proof,
            Proof::Key(key) => {
                let digest = URL_SAFE_NO_PAD.decode(proof).ok()?;
                let expected = key.digest(&self.session, kind, event);
                digest.len() == DIGEST && expected.verify_truncated_left(&digest).is_ok()
            }
        };
        match kind {
            _ if is_proven => Some(Opens::Rest { event, kind }),
            // Of another node, or of another time: its events are not here, but the session is.
            Kind::Standalone => Some(Opens::Anew),
            Kind::Answer => None,
        }
    }
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Standalone => b's',
            Self::Answer => b'a',
        }
    }

    fn of(letter: &str) -> Option<Self> {
        let kinds = [Self::Standalone, Self::Answer];
        kinds
            .into_iter()
            .find(|kind| letter.as_bytes() == [kind.letter()])
    }
}

/// Characters of a session's reference: enough to tell an own id from a foreign one. It opens nothing.
const SESSION: usize = 8;
/// Bytes of an incarnation's name.
const NAME: usize = 9;
/// Bytes of a digest.
const DIGEST: usize = 16;
const BEFORE_ALL: &str = "0";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SessionId;

    fn session(id: &str) -> SessionRef {
        id.parse::<SessionId>().unwrap().reference()
    }

    fn keyed(id: &str, key: &str) -> Tagger {
        Tagger::with_key(session(id), EventKey::new(key.as_bytes()))
    }

    fn rest(event: &str, kind: Kind) -> Opens<'_> {
        Opens::Rest { event, kind }
    }

    #[test]
    fn what_went_out_is_read_again() {
        for tagger in [Tagger::of_incarnation(session("a")), keyed("a", "key")] {
            for kind in [Kind::Standalone, Kind::Answer] {
                for event in ["7", "3/1", "", "a.b", "ü"] {
                    let id = tagger.tag(kind, event);
                    assert_eq!(tagger.read(&id), rest(event, kind), "{id}");
                }
            }
        }
    }

    #[test]
    fn another_session_s_opens_nothing() {
        let taggers = [
            Tagger::of_incarnation(session("a")),
            Tagger::of_incarnation(session("b")),
            keyed("a", "key"),
            keyed("b", "key"),
        ];
        let [a, b, keyed_a, keyed_b] = &taggers;
        for kind in [Kind::Standalone, Kind::Answer] {
            assert_eq!(b.read(&a.tag(kind, "1")), Opens::Nothing);
            assert_eq!(keyed_b.read(&keyed_a.tag(kind, "1")), Opens::Nothing);
        }
    }

    #[test]
    fn a_proof_holds_for_its_event_and_its_kind_only() {
        let tagger = keyed("a", "key");
        let mine = tagger.tag(Kind::Answer, "1");
        let (_, tag) = mine.rsplit_once('.').unwrap();
        assert_eq!(tagger.read(&format!("2.{tag}")), Opens::Nothing);
        assert_eq!(tagger.read(&format!("1.s{}", &tag[1..])), Opens::Anew);
        for cut in 0..tag.len() {
            assert_eq!(tagger.read(&format!("1.{}", &tag[..cut])), Opens::Nothing);
        }
        assert_eq!(keyed("a", "other").read(&mine), Opens::Nothing);
    }

    #[test]
    fn a_stream_of_another_node_opens_anew_and_an_answer_does_not() {
        let (here, there) = (session("a"), session("a"));
        let (here, there) = (Tagger::of_incarnation(here), Tagger::of_incarnation(there));
        assert_eq!(here.read(&there.tag(Kind::Standalone, "4")), Opens::Anew);
        assert_eq!(here.read(&there.tag(Kind::Answer, "4/1")), Opens::Nothing);
    }

    #[test]
    fn what_never_went_out_opens_nothing() {
        let (plain, keyed) = (Tagger::of_incarnation(session("a")), keyed("a", "key"));
        for id in ["", ".", "1", "3/1", "0.", "0.s", "x.y", "ü.ü", "0.sü"] {
            assert_eq!(plain.read(id), Opens::Nothing, "{id}");
            assert_eq!(keyed.read(id), Opens::Nothing, "{id}");
        }
        assert_eq!(plain.read("0"), Opens::Anew);
        assert_eq!(keyed.read("0"), Opens::Nothing);
    }
}
