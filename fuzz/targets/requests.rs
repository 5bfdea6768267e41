//! Whole requests and answers: the exchanges of `tests/protocol/inputs.rs`, chosen by what covers new code.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/protocol/inner.rs"]
mod inner;
#[allow(dead_code)]
#[path = "../../tests/protocol/inputs.rs"]
mod inputs;
#[allow(dead_code)]
#[path = "../../tests/protocol/setup.rs"]
mod setup;
#[allow(dead_code)]
#[path = "../../tests/support"]
mod support {
    pub(crate) mod answers;
    pub(crate) mod layer;
    pub(crate) mod requests;
    pub(crate) mod sessions;
    pub(crate) mod store;
    pub(crate) mod time;
}

use libfuzzer_sys::fuzz_target;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

// Four bytes stand for an exchange, so that one can change while the others stay.
fuzz_target!(|bytes: &[u8]| {
    let Some((settings, seeds)) = bytes.split_first() else {
        return;
    };
    let exchanges = seeds.chunks_exact(4).take(8).map(|seed| {
        let rng = TestRng::from_seed(RngAlgorithm::XorShift, &[seed, &[1; 12]].concat());
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let tree = inputs::exchange().new_tree(&mut runner);
        tree.expect("nothing is filtered").current()
    });
    inputs::check((exchanges.collect(), settings & 1 == 1, settings & 2 == 2)).unwrap();
});
