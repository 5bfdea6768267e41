//! In whatever order requests, creations and ends meet: what has ended here is let in by nobody, and announced once.

use std::{sync::Mutex as Log, time::Duration};

use shuttle::thread;

use super::*;
use crate::{
    protocol::SessionId,
    session::{Issuer, Owner, Scope, SessionRecord},
    sync::permute,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A session as the store finds it.
fn found() -> Found {
    let owner = Owner {
        scope: Scope::default(),
        principal: None,
    };
    let record = SessionRecord::new(owner, Issuer::Layer);
    Found {
        session: Session::new(SessionId::issue(), record),
        age: Duration::ZERO,
        idle_left: HOUR,
        life_left: None,
    }
}

/// As a store finds it that makes a handle of each answer.
fn anew(found: &Found) -> Found {
    Found {
        session: found.session.twin(),
        ..found.clone()
    }
}

/// What was announced, in order.
type Announced = Arc<Log<Vec<&'static str>>>;

fn registry() -> (Arc<Registry>, Announced) {
    let registry = Registry::new(mpsc::unbounded_channel().0);
    (Arc::new(registry), Announced::default())
}

fn ending(
    registry: &Arc<Registry>,
    announced: &Announced,
    found: &Found,
) -> thread::JoinHandle<bool> {
    let (registry, announced) = (Arc::clone(registry), Arc::clone(announced));
    let reference = *found.session.reference();
    thread::spawn(move || {
        let announce = |_: Option<&Session>| announced.lock().unwrap().push("ended");
        let ended = registry.end(&reference, announce);
        assert!(registry.get(&reference).is_none());
        matches!(ended, Ended::Served(_))
    })
}

/// Requests that come in, all with what a look-up said before the end.
fn entering(registry: &Arc<Registry>, found: Found) -> thread::JoinHandle<Option<InFlight>> {
    let registry = Arc::clone(registry);
    thread::spawn(move || registry.enter(found, true).ok())
}

#[test]
fn what_has_ended_lets_nobody_in_and_is_announced_once() {
    for (is_served, is_shared) in [(false, false), (true, false), (false, true), (true, true)] {
        permute(move || {
            let (registry, announced) = registry();
            let found = found();
            let copy = || {
                if is_shared {
                    found.clone()
                } else {
                    anew(&found)
                }
            };
            if is_served {
                drop(registry.enter(copy(), true));
            }
            let entering = [(); 2].map(|()| entering(&registry, copy()));
            let ending = [(); 2].map(|()| ending(&registry, &announced, &found));
            let ends = ending.map(|ending| ending.join().unwrap());
            assert!(ends != [true, true], "ended once");
            for entering in entering {
                if let Some(in_flight) = entering.join().unwrap() {
                    assert!(in_flight.session().has_ended());
                    assert!(ends.contains(&true), "whoever was let in was served");
                }
            }
            assert!(registry.enter(copy(), true).is_err());
            assert_eq!(*announced.lock().unwrap(), ["ended"]);
            assert_eq!(registry.tracker.in_flight(), 0);
        });
    }
}

#[test]
fn two_first_requests_find_the_same_session() {
    permute(|| {
        let (registry, _) = registry();
        let found = found();
        let entering = [(); 2].map(|()| entering(&registry, anew(&found)));
        let [one, other] = entering.map(|entering| entering.join().unwrap().unwrap());
        assert!(one.session().is(other.session()));
        assert_eq!(one.session().state().now().uses(), 2);
        assert_eq!(registry.sessions().len(), 1);
    });
}

#[test]
fn a_creation_that_is_ended_meanwhile_is_refused_or_ended() {
    permute(|| {
        let (registry, announced) = registry();
        let found = found();
        let creating = {
            let (registry, announced) = (Arc::clone(&registry), Arc::clone(&announced));
            let found = found.clone();
            thread::spawn(move || {
                let announce = |_: Option<&Session>| announced.lock().unwrap().push("created");
                registry.insert(&found, announce)
            })
        };
        let ending = ending(&registry, &announced, &found);
        let created = creating.join().unwrap();
        let was_served = ending.join().unwrap();
        assert_eq!(created.is_some(), was_served);
        let announced = announced.lock().unwrap();
        match created {
            Some(in_flight) => {
                assert!(in_flight.session().has_ended());
                assert_eq!(*announced, ["created", "ended"]);
            }
            None => assert_eq!(*announced, ["ended"]),
        }
        assert!(registry.sessions().is_empty());
    });
}

#[test]
fn a_session_whose_id_is_issued_again_lets_nobody_in() {
    permute(|| {
        let (registry, _) = registry();
        let before = found();
        drop(registry.enter(before.clone(), true));
        let entering = entering(&registry, before.clone());
        let created = registry.insert(&anew(&before), |_| {}).unwrap();
        let created = created.session();
        if let Some(in_flight) = entering.join().unwrap() {
            assert!(in_flight.session().has_ended() || in_flight.session().is(created));
        }
        assert!(before.session.has_ended() && !created.has_ended());
        let served = registry.get(created.reference()).unwrap();
        assert!(served.is(created));
    });
}

#[test]
fn a_session_whose_delete_is_pending_lets_nobody_in() {
    permute(|| {
        let (registry, _) = registry();
        let found = found();
        let entering = entering(&registry, found.clone());
        registry.delete_pending(found.session.reference());
        assert!(registry.enter(found.clone(), true).is_err());
        if let Some(in_flight) = entering.join().unwrap() {
            assert!(in_flight.session().has_ended());
        }
        assert!(registry.enter(found, true).is_err());
    });
}
