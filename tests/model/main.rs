//! The whole layer beside a model of it: `steps` says what may happen, `reference` which answers are right, and `run` compares
//! after each step of a random story
//!
//! * the answer: its status, the kind of its refusal, its session ids;
//! * what reached the inner service: with which id, session and owner, and that the store held it live at that moment;
//! * the store: which sessions live, whose they are, and to the nanosecond how long;
//! * streams: open as long as their session lives and is theirs, and no longer, with the inner service's body;
//! * events: each session is created once and ends once on each node that had it, for a reason that is right;
//! * what inner services are told: each end that they did not see, once, and no other.
//!
//! At the end of a story all sessions run out, and nothing may be left to come. One node is answered from its memory; two
//! share a store that they have to ask, with a feed and without one. Time is paused, so a story of hours takes milliseconds.
//! That is why the store is in memory here: a database goes by its own clock. What the databases do is held by the
//! conformance suite, which the store in memory passes too.
//!
//! A story that fails is made as short as can be and printed, with the command that tells it again. What is random in the
//! layer itself (a keeper's jitter, the ids that it issues) stays so.
//!
//! `faults/` has faults to plant, and `faults/run` plants each and sees whether it is found within the stories that are told
//! here. `MODEL_STORIES` tells so many of each kind of store, `MODEL_SEED` others.

mod inner;
mod reference;
mod run;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use std::{cell::Cell, time::Duration};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tokio::{runtime::Builder, time::timeout};

use self::{
    reference::Judgement,
    steps::{Store, Story, story},
};

/// How many stories are told of each kind of store, and how many steps each has at most.
const STORIES: u32 = 1_000;
const STEPS: usize = 60;

/// Where the stories come from, so that a change is judged by the same ones as the one before.
const SEED: u32 = 19;

#[test]
fn one_node_does_what_the_reference_does() {
    explore(Store::Memory);
}

#[test]
fn two_nodes_do_what_the_reference_does() {
    explore(Store::Shared);
}

#[test]
fn two_nodes_without_a_feed_do_what_the_reference_does() {
    explore(Store::Deaf);
}

/// Tells a story again that failed, as it was printed.
#[test]
fn a_story_told_again() {
    let told = std::env::var("MODEL_REPLAY").unwrap_or_else(|_| SHORTEST.to_owned());
    let story: Story = serde_json::from_str(&told).expect("a story as it was printed");
    tell(&story).expect("the layer does what the reference does");
}

fn explore(store: Store) {
    let set = |name: &str| {
        let number: Option<u32> = std::env::var(name)
            .ok()
            .map(|set| set.parse().expect("a number"));
        number
    };
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: LONGEST_SHRINKING,
        rng_seed: RngSeed::Fixed(set("MODEL_SEED").unwrap_or(SEED).into()),
        ..Config::with_cases(set("MODEL_STORIES").unwrap_or(STORIES))
    });
    let (told, steps) = (Cell::new(0), Cell::new(0));
    let has_failed = Cell::new(false);
    let outcome = runner.run(&story(store, STEPS), |story| {
        let judged = tell(&story);
        if !has_failed.get() {
            told.set(told.get() + 1);
            steps.set(steps.get() + story.steps.len());
        }
        has_failed.set(has_failed.get() || judged.is_err());
        judged.map_err(TestCaseError::fail)
    });
    println!("{store:?}: {} stories, {} steps", told.get(), steps.get());
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, story)) => panic!("{why}\n{}", replay(&story)),
        Err(error) => panic!("{error}"),
    }
}

/// A story as it is read and as it can be told again.
fn replay(story: &Story) -> String {
    let json = serde_json::to_string(story).expect("JSON");
    let steps: Vec<_> = story.steps.iter().map(|step| format!("{step:?}")).collect();
    let (world, steps) = (story.world, steps.join("\n  "));
    format!(
        "{world:?}\n  {steps}\nMODEL_REPLAY='{json}' cargo test --all-features --test model again"
    )
}

fn tell(story: &Story) -> Judgement {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let told = timeout(YEAR, run::run(story)).await;
        told.unwrap_or_else(|_| Err("it waits for ever".to_owned()))
    })
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// In milliseconds.
const LONGEST_SHRINKING: u32 = 20_000;

const SHORTEST: &str = r#"{"world":{"store":"Memory","idle":60,"life":null,"claims":false,"at_most":null},"steps":[{"Send":{"node":0,"user":"Alice","is_owners":false,"what":"Initialize","says":"Result","flow":"Through"}}]}"#;
