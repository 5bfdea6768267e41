//! The contract of stores, run against those in this process. And against wrong ones, which it must catch.

#![cfg(feature = "conformance")]

mod naive;

use std::sync::Arc;

use mcp_session_layer::{BoxSessionStore, MemoryStore, SessionStore, conformance};
use naive::NaiveStore;
use tokio::time::sleep;

mod memory_store {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        let store = MemoryStore::new();
        conformance::all(&store, sleep).await;
        exactly(&store).await;
        conformance::a_long_list_is_read_in_pages(&store, sleep, 10_000).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_boxed() {
        let store = BoxSessionStore::new(MemoryStore::new());
        conformance::all(&store, sleep).await;
        exactly(&store).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_in_an_arc() {
        let store = Arc::new(MemoryStore::new());
        conformance::all(&store, sleep).await;
        exactly(&store).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn keeps_it_on_threads_and_a_real_clock() {
        let store = MemoryStore::new();
        conformance::all(&store, sleep).await;
        exactly(&store).await;
        for _ in 0..20 {
            conformance::limits_hold_at_once(&store, sleep).await;
            for case in RACES {
                conformance::one(case, &store, sleep).await;
            }
        }
    }
}

mod naive_store {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        let store = NaiveStore::default();
        conformance::all(&store, sleep).await;
        exactly(&store).await;
        conformance::a_long_list_is_read_in_pages(&store, sleep, 2_500).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_when_it_can_be_cancelled_halfway() {
        let store = NaiveStore::slow();
        conformance::all(&store, sleep).await;
        exactly(&store).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_when_the_clock_is_advanced_by_hand() {
        conformance::all(&NaiveStore::default(), tokio::time::advance).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn keeps_it_on_threads_and_a_real_clock() {
        let store = NaiveStore::default();
        conformance::all(&store, sleep).await;
        exactly(&store).await;
    }
}

/// The cases whose outcome depends on who is faster.
const RACES: &[&str] = &[
    "of_creates_of_one_id_one_is_new",
    "of_many_deletes_one_is_true",
    "nothing_revives_a_session_while_it_is_ended",
    "of_many_claims_one_wins",
    "of_many_changes_none_is_lost",
    "creates_at_once_are_limited",
    "no_create_slips_past_end_all",
];

/// What a store in this process promises besides.
async fn exactly<S: SessionStore + Clone>(store: &S) {
    conformance::limits_hold_at_once(store, sleep).await;
    conformance::a_slow_listener_misses_nothing_without_a_gap(store, sleep, 3_000).await;
}

/// Stores with one defect each: the case that is there for it must fail, and most others must not.
mod a_wrong_store {
    use std::panic::catch_unwind;

    use super::{naive::Defect::*, *};

    const DEFECTS: &[(naive::Defect, &str)] = &[
        (TouchInserts, "only_create_inserts"),
        (DeleteFindsTheExpired, "only_create_inserts"),
        (UsedIdsStayTaken, "a_free_id_can_be_created_again"),
        (EmptyIsNone, "create_keeps_every_field"),
        (
            ParamsAreReformatted,
            "initialize_params_are_kept_byte_for_byte",
        ),
        (IdsIgnoreCase, "ids_are_compared_byte_for_byte"),
        (CreateReplaces, "create_never_replaces"),
        (CreateExtends, "create_never_replaces"),
        (CreateInTwoSteps, "of_creates_of_one_id_one_is_new"),
        (
            CreateIgnoresIdle,
            "a_new_session_lives_for_the_shortest_of_its_times",
        ),
        (
            CreateIgnoresLife,
            "a_new_session_lives_for_the_shortest_of_its_times",
        ),
        (
            CreateIgnoresInitialIdle,
            "a_new_session_lives_for_the_shortest_of_its_times",
        ),
        (
            ExpiresAnInstantLate,
            "a_new_session_lives_for_the_shortest_of_its_times",
        ),
        (
            ExpiresEarly,
            "a_new_session_lives_for_the_shortest_of_its_times",
        ),
        (TouchDoesNotExtend, "a_touch_extends"),
        (SkipsTooManyTouches, "every_touch_leaves_the_idle_time"),
        (TouchShortens, "a_touch_never_shortens"),
        (LoadExtends, "load_does_not_extend"),
        (LifeEndsNone, "a_life_ends_a_busy_session"),
        (DeleteFindsTheExpired, "expired_is_absent_for_every_verb"),
        (AgeFromLastTouch, "times_are_true"),
        (OverflowPanics, "very_long_times_do_not_overflow"),
        (TouchNowIgnoresTheOwner, "touch_now_agrees_with_touch"),
        (TouchNowNeverExtends, "touch_now_agrees_with_touch"),
        (TouchIgnoresTheOwner, "the_owner_is_compared_both_ways"),
        (ScopeIsIgnored, "the_owner_is_compared_both_ways"),
        (AnonymousIsEmpty, "the_owner_is_compared_both_ways"),
        (StrangersExtend, "a_strangers_touch_changes_nothing"),
        (DeleteInTwoSteps, "of_many_deletes_one_is_true"),
        (TouchRevives, "nothing_revives_a_session_while_it_is_ended"),
        (
            ClaimKeepsTheOwner,
            "a_claim_gives_an_anonymous_session_an_owner",
        ),
        (ClaimTakesOthers, "a_claim_takes_nothing_from_anybody"),
        (ClaimInTwoSteps, "of_many_claims_one_wins"),
        (ClaimDoesNotExtend, "a_claim_extends_as_a_touch_does"),
        (ClaimIsSilent, "a_claim_is_heard"),
        (
            ClaimCountsAsAnonymous,
            "a_claimed_session_counts_as_its_owners",
        ),
        (
            ExpireEndsTheLive,
            "expire_ends_what_is_over_and_nothing_else",
        ),
        (
            DeleteIdleEndsTheTouched,
            "what_is_touched_is_not_deleted_as_idle",
        ),
        (ExpireExtends, "expire_ends_what_is_over_and_nothing_else"),
        (ExpireIsARead, "a_touch_and_expire_agree_at_the_deadline"),
        (ChangeExtends, "a_change_extends_nothing"),
        (ValuesAreForgotten, "values_are_kept_and_changed"),
        (ChangeIgnoresTheLimit, "a_change_is_whole_or_not_at_all"),
        (ChangeIgnoresTheOwner, "a_change_is_its_owners"),
        (ChangeInTwoSteps, "of_many_changes_none_is_lost"),
        (ChangeIsSilent, "a_change_is_heard"),
        (CountsAbove, "the_total_is_limited"),
        (RefusedAreKept, "creates_at_once_are_limited"),
        (CountsEveryone, "each_principal_is_limited"),
        (CountsAnonymous, "anonymous_is_not_a_principal"),
        (CountsTheExpired, "the_absent_do_not_count"),
        (EvictsTheLastTouched, "the_longest_untouched_is_evicted"),
        (EvictsTwo, "the_longest_untouched_is_evicted"),
        (EvictsOldBeforeUnused, "an_unused_session_is_evicted_first"),
        (EvictsTheNewestUnused, "the_oldest_unused_is_evicted"),
        (UnusedHaveNoTime, "the_unused_have_a_time_of_their_own"),
        (EvictsPrincipals, "no_principal_goes_for_another"),
        (MakingRoomEvictsNone, "room_is_made_as_for_a_create"),
        (MakingRoomInserts, "making_room_inserts_nothing"),
        (EvictsAnybody, "a_principal_evicts_its_own"),
        (EvictsOneInUse, "one_in_use_is_not_evicted"),
        (ForgetsSkippedTouches, "every_touch_keeps_from_eviction"),
        (ExistsEvicts, "a_create_that_exists_evicts_none"),
        (ListSkips, "a_listing_is_complete"),
        (ListRepeats, "a_listing_is_complete"),
        (ListShowsTheExpired, "the_expired_are_not_listed"),
        (EndIgnoresTheScope, "end_is_within_its_scope"),
        (EndAllForgetsOne, "end_all_ends_those_and_no_others"),
        (EndAllIgnoresBegun, "no_create_slips_past_end_all"),
        (
            EndAllIgnoresBegun,
            "a_create_that_began_before_end_all_is_revoked",
        ),
        (
            EndAllIsForEver,
            "a_create_that_began_before_end_all_is_revoked",
        ),
        (
            RevokedEvicts,
            "a_create_that_began_before_end_all_is_revoked",
        ),
        (FeedIsSilent, "every_end_is_heard"),
        (ReasonIsAlwaysDeleted, "every_end_is_heard"),
        (AnnouncesTwice, "an_end_is_announced_once"),
        (AnnouncesExpiry, "expiry_is_not_announced"),
        (
            CreateKeepsItsPlace,
            "a_cancelled_create_is_whole_or_not_at_all",
        ),
        (CreateInHalves, "a_cancelled_create_is_whole_or_not_at_all"),
        (TouchTakesItOut, "a_cancelled_touch_harms_nothing"),
        (
            DeleteKeepsItsPlace,
            "a_cancelled_delete_is_whole_or_not_at_all",
        ),
    ];

    fn fails(defect: naive::Defect, case: &str) -> bool {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let store = NaiveStore::with_defect(defect);
            runtime.block_on(conformance::one(case, &store, sleep));
        };
        catch_unwind(run).is_err()
    }

    #[test]
    fn is_caught_by_the_case_that_is_there_for_it() {
        for (defect, case) in DEFECTS {
            assert!(fails(*defect, case), "{case} misses {defect:?}");
        }
    }

    #[test]
    fn keeps_most_other_rules() {
        let others = |defect| {
            conformance::CASES
                .iter()
                .filter(move |case| fails(defect, case))
        };
        for (defect, _) in DEFECTS {
            let failed: Vec<_> = others(*defect).collect();
            let most = conformance::CASES.len() / 3;
            assert!(failed.len() < most, "{defect:?} fails all of {failed:?}");
        }
    }

    #[test]
    fn there_is_one_for_every_case() {
        for case in conformance::CASES {
            let has_one = DEFECTS.iter().any(|(_, caught_by)| caught_by == case);
            assert!(has_one, "nothing shows that {case} can fail");
        }
    }

    /// As a shared store may be: its limits are exact one after another.
    #[tokio::test(start_paused = true)]
    async fn may_have_soft_limits() {
        conformance::all(&NaiveStore::with_defect(LimitsInTwoSteps), sleep).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic = "the total is exact"]
    async fn may_not_call_soft_limits_exact() {
        conformance::limits_hold_at_once(&NaiveStore::with_defect(LimitsInTwoSteps), sleep).await;
    }
}
