//! What is said of a session's times, by `load`, `touch` and `touch_now`.

use std::time::Duration;

use super::{
    case::{Case, LONG, SHORT, granted, session, terms, terms_of_idle},
    time::{ROUNDING, Span},
};
use crate::store::{Found, Now, SessionStore, Terms};

/// What is said about a session's times is true: the age grows from zero, what is left shrinks, and no touch
/// makes a session younger.
pub async fn times_are_true<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    let terms = Terms {
        initial_idle: LONG / 4,
        idle: LONG / 2,
        life: Some(LONG),
        ..terms()
    };
    let (session, creation) = case.timed(case.created(&case.owner("a"), &terms)).await;
    let check = async |found: Option<Found>, since: Span, lasts: Duration, most, what: &str| {
        let found = found.expect("a live session is found");
        let least = case.time.since(creation.before);
        assert!(
            found.age <= least + ROUNDING,
            "{what}: no older than it is: {found:?} after {least:?}"
        );
        let life_left = found.life_left.expect("it has a life");
        let life = found.age + life_left;
        assert!(
            life <= LONG + ROUNDING && life + ROUNDING >= LONG,
            "{what}: the age and the rest are its life: {found:?}"
        );
        assert!(found.idle_left <= most + ROUNDING, "{what}: {found:?}");
        let gone = case.time.since(since.before);
        assert!(
            found.idle_left + gone + ROUNDING >= lasts,
            "{what}: no less is left than there is: {found:?}"
        );
        found
    };
    let unused = LONG / 4;
    let first = check(
        case.load(&session).await,
        creation,
        unused,
        unused,
        "unused",
    )
    .await;
    let pause = SHORT / 4;
    case.time.wait(pause).await;
    let second = check(
        case.load(&session).await,
        creation,
        unused,
        unused,
        "unused",
    )
    .await;
    let older = |earlier: &Found, later: &Found, what: &str| {
        assert!(
            later.age + ROUNDING >= earlier.age + pause,
            "{what}: the age grows: {earlier:?}, {later:?}"
        );
        assert!(
            later.life_left.map(|left| left + pause) <= earlier.life_left.map(|l| l + ROUNDING),
            "{what}: the life runs out: {earlier:?}, {later:?}"
        );
    };
    older(&first, &second, "load");
    assert!(
        second.idle_left + pause <= first.idle_left + ROUNDING,
        "load: the idle time runs out: {first:?}, {second:?}"
    );
    case.time.wait(pause).await;
    let idle = LONG / 2;
    let (touched, touch) = case.timed(case.touch(&session, idle)).await;
    let third = check(touched, touch, idle, granted(idle), "touch").await;
    older(&second, &third, "touch");
    case.time.wait(pause).await;
    let fourth = check(
        case.load(&session).await,
        touch,
        idle,
        granted(idle),
        "load",
    )
    .await;
    older(&third, &fourth, "load after touch");

    let endless = case.created(&case.owner("a"), &super::case::terms()).await;
    let found = case.touch(&endless, LONG).await.expect("live");
    assert_eq!(
        found.life_left, None,
        "without an absolute life none is left"
    );
}

/// [`SessionStore::touch_now`], where it does not say "ask me", answers as
/// [`touch`](SessionStore::touch) does, and extends as it does.
pub async fn touch_now_agrees_with_touch<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let owner = case.owner("a");
    let never = session(&owner);
    let now = store.touch_now(never.id(), &owner, LONG);
    assert!(!matches!(now, Now::Live(_)), "never created: {now:?}");

    let session = case.created(&owner, &terms_of_idle(SHORT)).await;
    // What a store holds in this process it may hold only from the first touch on.
    let (_, touch) = case.timed(case.touch(&session, SHORT)).await;
    for stranger in [case.owner("b"), case.anonymous()] {
        let now = store.touch_now(session.id(), &stranger, LONG);
        assert!(!matches!(now, Now::Live(_)), "a stranger's: {now:?}");
    }
    case.time.until_almost(touch, SHORT).await;
    let (now, extended) = case
        .timed(async { store.touch_now(session.id(), &owner, SHORT) })
        .await;
    let within = case.time.surely_within(touch, SHORT);
    match now {
        Now::Live(found) => {
            assert_eq!(found.session.id(), session.id());
            assert_eq!(found.session.owner(), &owner);
            assert!(found.idle_left <= granted(SHORT) + ROUNDING, "{found:?}");
            assert!(
                found.idle_left + ROUNDING >= SHORT,
                "touch_now extends: {found:?}"
            );
            case.is_live_until(&session, extended, SHORT, "touch_now")
                .await;
        }
        Now::Absent => assert!(!within, "touch_now of a live session"),
        Now::Unknown => {}
    }
    let (_, last) = case.timed(case.touch(&session, SHORT)).await;
    case.time.until_over(last, granted(SHORT)).await;
    let now = store.touch_now(session.id(), &owner, LONG);
    assert!(!matches!(now, Now::Live(_)), "expired: {now:?}");

    let ended = case.created(&owner, &terms()).await;
    case.touch(&ended, LONG).await;
    let now = store.touch_now(ended.id(), &owner, LONG);
    assert!(!matches!(now, Now::Absent), "live: {now:?}");
    assert!(case.delete(&ended).await);
    let now = store.touch_now(ended.id(), &owner, LONG);
    assert!(!matches!(now, Now::Live(_)), "ended: {now:?}");
    assert!(!case.is_live(&ended).await, "touch_now inserts nothing");
}
