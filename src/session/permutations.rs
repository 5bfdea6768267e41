//! In whatever order a session's end, its streams and whoever reads them meet: the end of a session is the end of its
//! streams, and whoever waits for one is woken.

use axum::body::Body;
use futures_util::stream;
use http_body_util::BodyExt as _;
use shuttle::{future::block_on, thread};
use tokio::sync::mpsc;

use super::*;
use crate::{protocol::RejectionKind, sync::permute};

fn owner(principal: Option<&'static str>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.map(Principal::new),
    }
}

fn session() -> Session {
    let record = SessionRecord::new(owner(None), Issuer::Layer);
    Session::new(SessionId::issue(), record)
}

fn tracker() -> Arc<Tracker> {
    Arc::new(Tracker::new(mpsc::unbounded_channel().0))
}

/// A stream that nobody writes to, as the answer on this session to a request of nobody's that has passed its look-up.
fn open(
    session: &Session,
    tracker: &Arc<Tracker>,
    kind: StreamKind,
) -> Result<Body, RejectionKind> {
    session.state().begin_use();
    let in_flight = InFlight::counted(session.clone(), tracker, false);
    let silent = Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
    watch(silent, in_flight, kind)
}

/// Opens one and reads it to its end. Nobody who was not woken comes back.
fn reading(session: &Session, tracker: &Arc<Tracker>) -> thread::JoinHandle<()> {
    let (session, tracker) = (session.clone(), Arc::clone(tracker));
    thread::spawn(move || {
        if let Ok(body) = open(&session, &tracker, StreamKind::Answer) {
            assert!(block_on(body.collect()).unwrap().to_bytes().is_empty());
        }
    })
}

/// That nothing is left of what was open.
fn assert_idle(session: &Session, tracker: &Tracker) {
    assert!(!session.is_in_use());
    assert_eq!(tracker.in_flight(), 0);
    let attached = session.0.attached.lock();
    assert!(
        attached
            .more
            .as_ref()
            .is_none_or(|more| more.streams.is_empty())
    );
}

#[test]
fn streams_end_with_their_session() {
    permute(|| {
        let (session, tracker) = (session(), tracker());
        let reading = [(); 2].map(|()| reading(&session, &tracker));
        session.end();
        for reading in reading {
            reading.join().unwrap();
        }
        assert_idle(&session, &tracker);
    });
}

#[test]
fn streams_of_nobody_end_when_the_session_is_somebody_s() {
    permute(|| {
        let (session, tracker) = (session(), tracker());
        let reading = [(); 2].map(|()| reading(&session, &tracker));
        assert!(session.claim(&owner(Some("alice"))));
        for reading in reading {
            reading.join().unwrap();
        }
        assert_idle(&session, &tracker);
    });
}

#[test]
fn a_stream_that_is_dropped_while_it_ends_leaves_nothing() {
    permute(|| {
        let (session, tracker) = (session(), tracker());
        let bodies = [(); 2].map(|()| open(&session, &tracker, StreamKind::Standing).unwrap());
        let dropping = bodies.map(|body| thread::spawn(move || drop(body)));
        let ending = {
            let session = session.clone();
            thread::spawn(move || session.end_streams(|kind| kind == StreamKind::Standing))
        };
        session.end();
        for dropping in dropping {
            dropping.join().unwrap();
        }
        ending.join().unwrap();
        assert_idle(&session, &tracker);
    });
}

#[test]
fn no_local_value_outlives_its_session() {
    permute(|| {
        let session = session();
        let using = {
            let session = session.clone();
            thread::spawn(move || Arc::downgrade(&session.local::<String>()))
        };
        session.end();
        let value = using.join().unwrap();
        assert!(value.upgrade().is_none());
    });
}
