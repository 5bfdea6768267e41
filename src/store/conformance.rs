//! The contract of [`SessionStore`] as code: run it against a store of your own.
//!
//! Each rule is a plain `async fn`. It takes the store and a way to wait, so that a store which reads tokio's
//! clock is tested in no time at all under a paused one, and a store whose clock is a database's in a few
//! seconds under the real one:
//!
//! ```
//! # use mcp_session_layer::SessionStore;
//! # fn my_store() -> std::sync::Arc<impl SessionStore> { std::sync::Arc::new(Never) }
//! # struct Never;
//! # use mcp_session_layer::{*, store::*};
//! # impl SessionStore for Never {
//! #     async fn create(&self, _: &Session, _: &Terms) -> Result<Created, StoreError> { unimplemented!() }
//! #     async fn load(&self, _: &SessionId) -> Result<Option<Found>, StoreError> { unimplemented!() }
//! #     async fn touch(&self, _: &SessionId, _: &Owner, _: std::time::Duration) -> Result<Option<Found>, StoreError> { unimplemented!() }
//! #     async fn delete(&self, _: &SessionId, _: EndReason) -> Result<bool, StoreError> { unimplemented!() }
//! # }
//! use mcp_session_layer::conformance;
//!
//! // A store in memory: its clock is tokio's, which stands still until everybody waits.
//! #[tokio::test(start_paused = true)]
//! async fn keeps_the_contract() {
//!     conformance::all(&my_store(), tokio::time::sleep).await;
//! }
//!
//! // The same on several threads, where calls truly race. A database only needs this one.
//! #[tokio::test(flavor = "multi_thread")]
//! async fn keeps_the_contract_on_threads() {
//!     conformance::all(&my_store(), tokio::time::sleep).await;
//! }
//! ```
//!
//! The store must be [`Clone`], because calls race in tasks of their own: put it into an
//! [`Arc`](std::sync::Arc). Each case uses ids and scopes that nobody else has, so a shared database will do; what
//! it leaves there expires within minutes.
//!
//! What a store says it *cannot* do is not asked of it: no claims, no `expire`, no values, no directory,
//! no feed, then no cases about them.
//!
//! [`all`] asks of limits that they are exact for one creation after another, and allows creations at the same moment to
//! overshoot. A store that promises more runs [`limits_hold_at_once`] too. Two more cases take a size, since not every
//! database is fast: [`a_long_list_is_read_in_pages`] and [`a_slow_listener_misses_nothing_without_a_gap`].
//!
//! # Panics
//!
//! Every case panics when the store breaks its rule or answers with an error, and says what it expected. [`all`]
//! runs every case before it panics with the list of those that failed.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use self::time::Time;
pub use self::{
    directory::a_long_list_is_read_in_pages, feed::a_slow_listener_misses_nothing_without_a_gap,
    limits::limits_hold_at_once,
};
use super::SessionStore;

mod answers;
mod cancelling;
mod case;
mod claims;
mod create;
mod directory;
mod ends;
mod eviction;
mod expire;
mod feed;
mod limits;
mod owners;
mod revoking;
mod room;
mod time;
mod times;
mod values;

/// Lists the cases once: those that mostly wait, which run side by side on a real clock, and the others.
macro_rules! cases {
    (waiting { $($slow:ident::$waits:ident,)* } quick { $($swift:ident::$acts:ident,)* }) => {
        $(pub use self::$slow::$waits;)*
        $(pub use self::$swift::$acts;)*

        /// The names of the cases that [`all`] runs.
        pub const CASES: &[&str] = &[$(stringify!($waits),)* $(stringify!($acts),)*];
        const WAITING: &[&str] = &[$(stringify!($waits),)*];

        /// Runs the case of this name, for a harness that makes a test of each of [`CASES`].
        ///
        /// # Panics
        ///
        /// When the case does, or when there is none of this name.
        pub async fn one<S: SessionStore + Clone>(
            name: &str,
            store: &S,
            wait: impl AsyncFn(Duration),
        ) {
            // Boxed, because the largest of these futures would otherwise be the size of this one.
            match name {
                $(stringify!($waits) => Box::pin($waits(store, wait)).await,)*
                $(stringify!($acts) => Box::pin($acts(store, wait)).await,)*
                _ => panic!("there is no case {name:?}"),
            }
        }
    };
}

cases! {
    waiting {
        create::only_create_inserts,
        create::a_free_id_can_be_created_again,
        times::a_new_session_lives_for_the_shortest_of_its_times,
        times::a_touch_extends,
        times::every_touch_leaves_the_idle_time,
        times::a_touch_never_shortens,
        times::load_does_not_extend,
        times::a_life_ends_a_busy_session,
        times::expired_is_absent_for_every_verb,
        answers::times_are_true,
        answers::touch_now_agrees_with_touch,
        owners::a_strangers_touch_changes_nothing,
        claims::a_claim_extends_as_a_touch_does,
        expire::expire_ends_what_is_over_and_nothing_else,
        expire::a_touch_and_expire_agree_at_the_deadline,
        values::a_change_extends_nothing,
        limits::the_absent_do_not_count,
        eviction::the_longest_untouched_is_evicted,
        eviction::an_unused_session_is_evicted_first,
        eviction::the_oldest_unused_is_evicted,
        eviction::the_unused_have_a_time_of_their_own,
        eviction::no_principal_goes_for_another,
        eviction::a_principal_evicts_its_own,
        room::room_is_made_as_for_a_create,
        eviction::every_touch_keeps_from_eviction,
        directory::the_expired_are_not_listed,
        revoking::a_create_that_began_before_end_all_is_revoked,
        feed::expiry_is_not_announced,
        cancelling::a_cancelled_create_is_whole_or_not_at_all,
        cancelling::a_cancelled_touch_harms_nothing,
        cancelling::a_cancelled_delete_is_whole_or_not_at_all,
    }
    quick {
        create::create_keeps_every_field,
        create::initialize_params_are_kept_byte_for_byte,
        create::ids_are_compared_byte_for_byte,
        create::create_never_replaces,
        create::of_creates_of_one_id_one_is_new,
        times::very_long_times_do_not_overflow,
        owners::the_owner_is_compared_both_ways,
        ends::of_many_deletes_one_is_true,
        ends::nothing_revives_a_session_while_it_is_ended,
        ends::what_is_touched_is_not_deleted_as_idle,
        claims::a_claim_gives_an_anonymous_session_an_owner,
        claims::a_claim_takes_nothing_from_anybody,
        claims::a_claim_is_heard,
        claims::of_many_claims_one_wins,
        claims::a_claimed_session_counts_as_its_owners,
        values::values_are_kept_and_changed,
        values::a_change_is_whole_or_not_at_all,
        values::a_change_is_its_owners,
        values::of_many_changes_none_is_lost,
        values::a_change_is_heard,
        limits::the_total_is_limited,
        limits::each_principal_is_limited,
        limits::anonymous_is_not_a_principal,
        eviction::a_create_that_exists_evicts_none,
        eviction::one_in_use_is_not_evicted,
        limits::creates_at_once_are_limited,
        room::making_room_inserts_nothing,
        directory::a_listing_is_complete,
        directory::end_is_within_its_scope,
        revoking::end_all_ends_those_and_no_others,
        revoking::no_create_slips_past_end_all,
        feed::every_end_is_heard,
        feed::an_end_is_announced_once,
    }
}

/// Runs every case, and panics with the list of those that failed.
///
/// On a real clock this takes about three seconds of waiting, and three thousand calls.
///
/// # Panics
///
/// When a case does.
pub async fn all<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let (waiting, quick) = CASES.split_at(WAITING.len());
    let mut failures = Vec::new();
    // Waiting is free on a simulated clock, and on one that jumps for all at once only one may wait.
    if Time::new(&wait).await.is_simulated() {
        for name in waiting {
            failures.extend(failure(name, store, &wait).await);
        }
    } else {
        let cases = waiting.iter().map(|name| failure(name, store, &wait));
        failures.extend(together(cases).await.into_iter().flatten());
    }
    for name in quick {
        failures.extend(failure(name, store, &wait).await);
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        CASES.len(),
        failures.join("\n")
    );
}

/// Runs a case and says how it failed.
async fn failure<S: SessionStore + Clone>(
    name: &str,
    store: &S,
    wait: impl AsyncFn(Duration),
) -> Option<String> {
    let mut case = pin!(one(name, store, wait));
    let panic = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| case.as_mut().poll(cx))) {
            Ok(poll) => poll.map(|()| None),
            Err(panic) => Poll::Ready(Some(panic)),
        },
    )
    .await?;
    Some(format!("{name}: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

/// Waits for all of these in one task.
async fn together<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    poll_fn(|cx| {
        for (call, answer) in &mut running {
            if answer.is_none()
                && let Poll::Ready(value) = Pin::new(call).poll(cx)
            {
                *answer = Some(value);
            }
        }
        match running.iter().all(|(_, answer)| answer.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, answer)| answer)
        .collect()
}
