//! How long sessions live.

use std::time::Duration;

use super::{
    case::{Case, LONG, SHORT, granted, terms, terms_of_idle},
    time::ROUNDING,
};
use crate::store::{Created, EndReason, Expiry, Found, Now, SessionStore, Terms};

/// Until its first touch a session lives for the shortest of [`Terms::initial_idle`], [`Terms::idle`] and
/// [`Terms::life`].
pub async fn a_new_session_lives_for_the_shortest_of_its_times<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let shapes = [
        (SHORT, LONG, None, "initial idle time"),
        (SHORT, LONG, Some(LONG), "initial idle time within a life"),
        (LONG, SHORT, None, "idle time"),
        (LONG, LONG, Some(SHORT), "life"),
    ];
    let case = Case::new(store, wait).await;
    let mut created = Vec::new();
    for (unused, idle, life, what) in shapes {
        let terms = Terms {
            initial_idle: unused,
            idle,
            life,
            ..terms()
        };
        let (session, creation) = case.timed(case.created(&case.anonymous(), &terms)).await;
        created.push((session, creation, what));
    }
    for (session, creation, what) in &created {
        case.is_live_until(session, *creation, SHORT, what).await;
    }
    for (session, creation, what) in &created {
        case.is_absent_from(session, *creation, SHORT, what).await;
    }
}

/// The first touch ends the initial idle time: from then on the session lives for the idle time of each touch.
pub async fn a_touch_extends<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    let unused = Terms {
        initial_idle: SHORT,
        ..terms()
    };
    let (session, creation) = case.timed(case.created(&case.owner("a"), &unused)).await;
    let mut last = creation;
    // Three touches, each in the last moments of the time before it.
    for _ in 0..3 {
        case.time.until_almost(last, SHORT).await;
        let (touched, touch) = case.timed(case.touch(&session, SHORT)).await;
        if !case.time.surely_within(last, SHORT) {
            return;
        }
        let touched = touched.expect("a session in use is live");
        assert!(
            touched.idle_left <= granted(SHORT) + ROUNDING && touched.idle_left + ROUNDING >= SHORT,
            "a touch leaves the idle time that it was given: {touched:?}"
        );
        last = touch;
    }
    case.is_live_until(&session, last, SHORT, "touched").await;
    case.is_absent_from(&session, last, granted(SHORT), "touched")
        .await;
}

/// However fast touches follow each other, so that most of them need not be written, each leaves the idle time that it
/// was given, and no more than a sixteenth above it.
pub async fn every_touch_leaves_the_idle_time<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for idle in [SHORT, LONG] {
        let new = case.created(&case.owner("a"), &terms_of_idle(idle)).await;
        for _ in 0..12 {
            let (found, touch) = case.timed(case.touch(&new, idle)).await;
            let took = case.time.since(touch.before);
            if took > SHORT / 2 {
                return;
            }
            let found = found.expect("a session in use is live");
            assert!(
                found.idle_left + took + ROUNDING >= idle,
                "a touch leaves no less than it was given: {found:?}"
            );
            assert!(
                found.idle_left <= granted(idle) + ROUNDING,
                "a touch leaves no more than a sixteenth above it: {found:?}"
            );
            case.time.wait(SHORT / 48).await;
        }
        // Nor one that asks for more than those before it.
        let (found, touch) = case.timed(case.touch(&new, idle * 2)).await;
        let took = case.time.since(touch.before);
        if took < SHORT / 2 {
            let found = found.expect("a session in use is live");
            assert!(
                found.idle_left + took + ROUNDING >= idle * 2,
                "a touch leaves no less than it was given: {found:?}"
            );
        }
    }
}

/// A touch with a shorter idle time leaves what is left as it is.
pub async fn a_touch_never_shortens<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let session = case.created(&case.owner("a"), &terms()).await;
    let (_, long) = case.timed(case.touch(&session, LONG)).await;
    let (found, short) = case.timed(case.touch(&session, SHORT)).await;
    let found = found.expect("the session is live");
    assert!(
        found.idle_left + case.time.since(long.before) + ROUNDING >= LONG,
        "a shorter touch leaves the time of the longer one: {found:?}"
    );
    let zero = case.touch(&session, Duration::ZERO).await;
    assert!(zero.is_some(), "a touch of no time is a touch");
    case.time.until_over(short, SHORT).await;
    assert!(
        case.is_live(&session).await,
        "a shorter touch does not shorten"
    );

    // Nor does a first touch shorten the initial idle time.
    let unused = Terms {
        initial_idle: LONG,
        ..terms()
    };
    let session = case.created(&case.owner("a"), &unused).await;
    let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
    case.time.until_over(touch, SHORT).await;
    assert!(
        case.is_live(&session).await,
        "a short first touch does not shorten the initial idle time"
    );
}

/// Reading is not using: [`load`](SessionStore::load) extends nothing.
pub async fn load_does_not_extend<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let unused = Terms {
        initial_idle: SHORT,
        ..terms()
    };
    let (untouched, creation) = case.timed(case.created(&case.owner("a"), &unused)).await;
    let touched = case.created(&case.owner("a"), &terms_of_idle(SHORT)).await;
    let (_, touch) = case.timed(case.touch(&touched, SHORT)).await;
    for _ in 0..4 {
        case.time.wait(SHORT / 8).await;
        case.load(&untouched).await;
        case.load(&touched).await;
    }
    case.is_live_until(&untouched, creation, SHORT, "a new session that is read")
        .await;
    case.is_live_until(&touched, touch, SHORT, "a session that is read")
        .await;
    case.is_absent_from(&untouched, creation, SHORT, "a new session that is read")
        .await;
    case.is_absent_from(&touched, touch, granted(SHORT), "a session that is read")
        .await;
}

/// The absolute life ends a session, however busy, and no touch reaches past it.
pub async fn a_life_ends_a_busy_session<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let life = SHORT * 2;
    let case = Case::new(store, wait).await;
    let terms = Terms {
        life: Some(life),
        ..terms()
    };
    let (session, creation) = case.timed(case.created(&case.owner("a"), &terms)).await;
    for beat in 1..8 {
        case.time.until(creation.after, life / 8 * beat).await;
        let touched = case.touch(&session, LONG).await;
        if !case.time.surely_within(creation, life) {
            break;
        }
        let found = touched.expect("a session is live until its life ends");
        assert!(
            Some(found.idle_left) <= found.life_left,
            "no touch reaches past the end of life: {found:?}"
        );
    }
    case.time.until_over(creation, life).await;
    let touched = case.touch(&session, LONG).await;
    assert!(touched.is_none(), "a touch after the end of life");
    case.is_absent_from(&session, creation, life, "a busy session")
        .await;
}

/// From the instant its time is up a session is absent for every verb, whether or not anything has swept it
/// away.
pub async fn expired_is_absent_for_every_verb<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owner = case.anonymous();
    // One session a verb: the first verb may sweep.
    let mut sessions = Vec::new();
    for _ in 0..7 {
        let session = case.created(&owner, &terms_of_idle(SHORT)).await;
        let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
        sessions.push((session, touch));
    }
    for (session, touch) in &sessions {
        case.is_live_until(session, *touch, SHORT, "idle").await;
    }
    let (_, last) = sessions[6];
    case.time.until_over(last, granted(SHORT)).await;
    let [touch, load, delete, now, claim, expire, create] =
        [0, 1, 2, 3, 4, 5, 6].map(|i| &sessions[i].0);
    let touched = case.touch(touch, LONG).await;
    assert!(touched.is_none(), "touch of an expired session");
    assert!(!case.is_live(load).await, "load of an expired session");
    assert!(!case.delete(delete).await, "delete of an expired session");
    let now = store.touch_now(now.id(), &owner, LONG);
    assert!(!matches!(now, Now::Live(_)), "touch_now of an expired one");
    let claimed = store.claim(claim.id(), &case.owner("a"), LONG).await;
    assert!(!matches!(claimed, Ok(Some(_))), "claim of an expired one");
    let expired = store.expire(expire.id()).await;
    assert!(!matches!(expired, Ok(Expiry::Left(_))), "expire");
    let created = case.create(create, &terms()).await;
    assert!(
        matches!(created, Created::New { .. }),
        "an expired session takes no id: {created:?}"
    );
    if let Some(directory) = store.directory() {
        for (session, _) in &sessions[..6] {
            let end = directory
                .end(&case.scope, session.reference(), EndReason::Revoked)
                .await;
            assert!(!end.expect("end answers"), "end of an expired session");
        }
    }
}

/// The longest times there are mean "for ever", and overflow nothing.
pub async fn very_long_times_do_not_overflow<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let years = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    for long in [years, Duration::from_millis(u64::MAX), Duration::MAX] {
        let terms = Terms {
            idle: long,
            initial_idle: long,
            life: Some(long),
            started_ago: long,
            ..terms()
        };
        let session = case.created(&case.owner("a"), &terms).await;
        let is_long = |found: Option<Found>, what: &str| {
            let found = found.expect("a long life is live");
            assert!(
                found.idle_left > LONG && found.life_left.is_none_or(|left| left > LONG),
                "{what}: {long:?} is long: {found:?}"
            );
        };
        is_long(case.load(&session).await, "load");
        is_long(case.touch(&session, long).await, "touch");
        is_long(case.load(&session).await, "load after touch");
        assert!(case.delete(&session).await, "a long life can be ended");
    }
}
