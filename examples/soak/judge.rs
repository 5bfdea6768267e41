//! What was answered, and whether that is what the rules ask for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::client::Answer;

/// Counts answers. Whatever is not as asked for is kept, with an example.
#[derive(Default)]
pub(crate) struct Judge {
    /// By what was asked and what was answered; 0 is none.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    requests: AtomicU64,
    unexpected: AtomicU64,
    lost: AtomicU64,
    slowest: AtomicU64,
    examples: Mutex<Vec<String>>,
    /// Whether the store is away, or was a moment ago.
    is_away: AtomicBool,
}

/// What became of a request.
pub(crate) enum Outcome {
    Right(Answer),
    /// 503 with `Retry-After`, while the store was away.
    Away,
    /// Anything else, and its status if there was one.
    Wrong(Option<u16>),
}

impl Outcome {
    pub(crate) fn if_right(self) -> Option<Answer> {
        match self {
            Self::Right(answer) => Some(answer),
            Self::Away | Self::Wrong(_) => None,
        }
    }
}

/// When a request was sent, and whether the store was away then.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    at: Instant,
    is_away: bool,
}

impl Judge {
    pub(crate) fn asks(&self) -> Asked {
        Asked {
            at: Instant::now(),
            is_away: self.is_away(),
        }
    }

    pub(crate) fn judge(
        &self,
        what: &'static str,
        asked: Asked,
        answer: anyhow::Result<Answer>,
        is_right: impl FnOnce(&Answer) -> bool,
    ) -> Outcome {
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        self.count(what, status);
        let excused = asked.is_away || self.is_away();
        if !excused {
            let took = u64::try_from(asked.at.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.slowest.fetch_max(took, Relaxed);
        }
        match answer {
            Ok(answer) if is_right(&answer) => Outcome::Right(answer),
            Ok(answer) if excused && status == 503 && answer.is_retry_later() => Outcome::Away,
            Ok(answer) => {
                self.unexpected(format!("{what}: {answer:?}"));
                Outcome::Wrong(Some(status))
            }
            Err(error) => {
                self.unexpected(format!("{what}: {error:#}"));
                Outcome::Wrong(None)
            }
        }
    }

    /// Counts an answer that was looked at elsewhere.
    pub(crate) fn count(&self, what: &'static str, status: u16) {
        self.requests.fetch_add(1, Relaxed);
        *self.answers.lock().entry((what, status)).or_default() += 1;
    }

    pub(crate) fn unexpected(&self, what: String) {
        self.unexpected.fetch_add(1, Relaxed);
        let mut examples = self.examples.lock();
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }

    /// A session that lives is not there.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Relaxed);
    }

    pub(crate) fn is_away(&self) -> bool {
        self.is_away.load(Relaxed)
    }

    pub(crate) fn answers(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.answers.lock().clone()
    }

    /// How many requests were answered with this status, whatever they asked.
    pub(crate) fn with_status(&self, status: u16) -> u64 {
        let answers = self.answers.lock();
        let some = answers.iter().filter(|((_, of), _)| *of == status);
        some.map(|(_, number)| number).sum()
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            requests: self.requests.load(Relaxed),
            unexpected: self.unexpected.load(Relaxed),
            lost: self.lost.load(Relaxed),
        }
    }

    /// While the store was there.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest.load(Relaxed))
    }

    pub(crate) fn examples(&self) -> Vec<String> {
        self.examples.lock().clone()
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) unexpected: u64,
    /// Sessions that live, and were answered 404.
    pub(crate) lost: u64,
}

const EXAMPLES: usize = 10;
