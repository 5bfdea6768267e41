//! `expire`: what says for certain whether a session is over. Not asked of a store that cannot.

use std::{panic::resume_unwind, time::Duration};

use super::case::{Case, LONG, SHORT, at_once, granted, session, terms, terms_of_idle};
use crate::{
    session::Session,
    store::{Created, Expiry, Found, SessionStore, StoreErrorKind},
};

/// [`expire`](SessionStore::expire) leaves a live session as it is, not even extended, and reads it whole. It makes an end
/// of one whose time is up, and says of one that is gone that it is.
pub async fn expire_ends_what_is_over_and_nothing_else<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_expire(&case).await {
        return;
    }
    let mut record = case.created(&case.owner("a"), &terms()).await.record();
    record.initialize_params = Some("{}".into());
    let whole = Session::new(session(&case.anonymous()).id().clone(), record);
    let created = case.create(&whole, &terms_of_idle(SHORT)).await;
    assert!(matches!(created, Created::New { .. }), "{created:?}");
    let (_, touch) = case.timed(case.touch(&whole, SHORT)).await;
    for _ in 0..4 {
        case.time.wait(SHORT / 8).await;
        let left = expire(store, &whole).await;
        if case.time.surely_within(touch, SHORT) {
            let left = left.expect("a live session is left");
            assert_eq!(left.session.record(), whole.record(), "as it was created");
        }
    }
    case.is_live_until(&whole, touch, SHORT, "a session that was asked about")
        .await;
    case.is_absent_from(
        &whole,
        touch,
        granted(SHORT),
        "a session that was asked about",
    )
    .await;
    for time in ["first", "second"] {
        let left = expire(store, &whole).await;
        assert!(
            left.is_none(),
            "its time is up, the {time} time: {left:?} left"
        );
        let touched = case.touch(&whole, LONG).await;
        assert!(touched.is_none(), "what is over is not touched");
    }
    let again = case.create(&whole, &terms()).await;
    assert!(
        matches!(again, Created::New { .. }),
        "its id is free: {again:?}"
    );
    assert!(expire(store, &whole).await.is_some(), "the new one lives");
    assert!(case.delete(&whole).await, "the new one lives");
    let left = expire(store, &whole).await;
    assert!(left.is_none(), "a deleted session is gone");
}

/// A session that is touched in its very last moment lives, and then nobody is told that it is over; or it is over, and
/// then no touch finds it. Whatever of this is under way at once.
pub async fn a_touch_and_expire_agree_at_the_deadline<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    if !can_expire(&case).await {
        return;
    }
    // Where waiting takes time, many wait together.
    let at_a_time = if case.time.is_simulated() { 1 } else { 24 };
    for first in (0..ROUNDS).step_by(at_a_time) {
        let mut sessions = Vec::new();
        for nth in first..first + at_a_time {
            let session = case.created(&case.owner("a"), &terms_of_idle(SHORT)).await;
            let (touched, touch) = case.timed(case.touch(&session, SHORT)).await;
            if let Some(found) = touched {
                sessions.push((nth, session, found.idle_left, touch));
            }
        }
        for (nth, session, left, touch) in sessions {
            let early = Duration::from_micros(500) * (nth % 8) as u32;
            case.time
                .until(touch.after, left.saturating_sub(early))
                .await;
            at_the_deadline(&case, &session).await;
        }
    }
}

async fn at_the_deadline<S: SessionStore + Clone, W: AsyncFn(Duration)>(
    case: &Case<'_, S, W>,
    session: &Session,
) {
    let begun = case.time.now();
    let racers: Vec<_> = (0..4)
        .map(|nth| {
            let (store, session) = (case.store.clone(), session.clone());
            async move {
                let touches = nth % 2 == 0;
                let lives = match touches {
                    true => {
                        let touched = store.touch(session.id(), session.owner(), SHORT).await;
                        touched.expect("touch answers").is_some()
                    }
                    false => expire(&store, &session).await.is_some(),
                };
                (touches, lives)
            }
        })
        .collect();
    let racing = tokio::spawn(at_once(racers));
    let mut answers = Vec::new();
    // Over the moment itself, while touches of the moment before may still be under way.
    for _ in 0..3 {
        answers.push((false, expire(case.store, session).await.is_some()));
        case.time.wait(Duration::from_millis(1)).await;
    }
    match racing.await {
        Ok(raced) => answers.extend(raced),
        Err(error) => resume_unwind(error.into_panic()),
    }
    let was_touched = answers.contains(&(true, true));
    let found = case.load(session).await;
    if !was_touched {
        // Both touches came too late, so it is over.
        assert!(found.is_none(), "over for a touch and there for a load");
        assert!(expire(case.store, session).await.is_none(), "over for all");
        assert!(case.touch(session, LONG).await.is_none(), "over for ever");
    } else if case.time.since(begun) < SHORT / 2 {
        assert!(found.is_some(), "a session that was touched lives");
        for (touches, lives) in answers {
            let what = if touches { "touch" } else { "expire" };
            assert!(lives, "{what}: it is not over, for a touch has found it");
        }
        assert!(case.delete(session).await, "it lives until it is ended");
    }
}

/// What is left, if it is not over.
async fn expire(store: &impl SessionStore, session: &Session) -> Option<Found> {
    match store.expire(session.id()).await.expect("expire answers") {
        Expiry::Left(found) => Some(found),
        Expiry::Over => None,
    }
}

/// Whether the store has the verb at all.
async fn can_expire<S: SessionStore + Clone, W: AsyncFn(Duration)>(case: &Case<'_, S, W>) -> bool {
    match case.store.expire(session(&case.anonymous()).id()).await {
        Ok(Expiry::Over) => true,
        Ok(Expiry::Left(found)) => panic!("a session that never was is left: {found:?}"),
        Err(error) if error.kind() == StoreErrorKind::Unsupported => false,
        Err(error) => panic!("expire answers: {error:?}"),
    }
}

const ROUNDS: usize = 48;
