//! What is said meanwhile and at the end.

use std::{fmt, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    EVERY,
    judge::{Judge, Totals},
    node::Node,
};

/// Looks at a run from the side.
pub(crate) struct Watch<'a> {
    judge: &'a Judge,
    nodes: &'a [Node],
    begun: Instant,
    /// The nodes' resident bytes while all sessions were there, from then on.
    resident: Vec<Vec<u64>>,
    load: Option<(Instant, Totals)>,
    rate: f64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(judge: &'a Judge, nodes: &'a [Node]) -> Self {
        Self {
            judge,
            nodes,
            begun: Instant::now(),
            resident: Vec::new(),
            load: None,
            rate: 0.0,
        }
    }

    /// Waits for this, and says every few seconds how things are.
    pub(crate) async fn until<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        let mut before = self.judge.totals();
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    let now = self.judge.totals();
                    self.say(what, now, before);
                    before = now;
                }
            }
        }
    }

    fn say(&mut self, what: &str, now: Totals, before: Totals) {
        let resident = self.resident_now();
        let all = self.begun.elapsed().as_secs();
        println!(
            "{:2}:{:02} {what}: {} requests, {:.0}/s, {} were 503, {} unexpected, {} lost, {} MiB",
            all / 60,
            all % 60,
            now.requests,
            (now.requests - before.requests) as f64 / EVERY.as_secs_f64(),
            self.judge.with_status(503),
            now.unexpected,
            now.lost,
            mebibytes(&resident),
        );
        if self.load.is_some() && self.rate == 0.0 {
            self.resident.push(resident);
        }
    }

    fn resident_now(&self) -> Vec<u64> {
        self.nodes.iter().map(Node::resident).collect()
    }

    /// From the middle of it on memory has to stay as it is.
    pub(crate) fn load_begins(&mut self) {
        self.resident.push(self.resident_now());
        self.load = Some((Instant::now(), self.judge.totals()));
    }

    pub(crate) fn load_is_over(&mut self) {
        self.resident.push(self.resident_now());
        if let Some((begun, before)) = self.load {
            let requests = self.judge.totals().requests - before.requests;
            self.rate = requests as f64 / begun.elapsed().as_secs_f64();
        }
    }

    pub(crate) fn report(self) -> Report {
        let answers = self.judge.answers();
        let answers = answers
            .into_iter()
            .map(|((what, status), number)| (what, status, number));
        let at = |place: usize| self.resident.get(place).cloned().unwrap_or_default();
        let last = self.resident.len().saturating_sub(1);
        Report {
            answers: answers.collect(),
            totals: self.judge.totals(),
            rate: self.rate,
            slowest: self.judge.slowest(),
            resident: [at(0), at(last / 2), at(last)],
            examples: self.judge.examples(),
        }
    }
}

pub(crate) struct Report {
    answers: Vec<(&'static str, u16, u64)>,
    totals: Totals,
    /// Requests a second, of the load.
    rate: f64,
    slowest: Duration,
    /// The nodes' resident bytes: at the beginning of the load, in the middle, at its end.
    resident: [Vec<u64>; 3],
    examples: Vec<String>,
}

impl Report {
    pub(crate) fn is_well(&self) -> bool {
        self.totals.unexpected == 0 && self.totals.lost == 0 && self.is_flat()
    }

    /// Until the middle a node gets to know the sessions of the other one, and has some that are gone to clear away. Allocators
    /// keep some of what was freed.
    fn is_flat(&self) -> bool {
        let [_, middle, last] = &self.resident;
        let mut both = middle.iter().zip(last);
        both.all(|(middle, last)| *last <= middle + middle / 20 + SLACK)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "   asked          answered    times")?;
        for (what, status, number) in &self.answers {
            writeln!(f, "   {what:<14} {status:>8} {number:>8}")?;
        }
        let Totals {
            requests,
            unexpected,
            lost,
        } = self.totals;
        writeln!(f, "   {requests} requests, {:.0}/s under load", self.rate)?;
        writeln!(
            f,
            "   {lost} sessions lost, {unexpected} unexpected answers"
        )?;
        writeln!(
            f,
            "   slowest answer while the store was there: {:?}",
            self.slowest
        )?;
        let [first, middle, last] = &self.resident;
        writeln!(
            f,
            "   resident MiB at the beginning {}, in the middle {}, at the end {}{}",
            mebibytes(first),
            mebibytes(middle),
            mebibytes(last),
            if self.is_flat() { "" } else { ": IT GREW" },
        )?;
        for example in &self.examples {
            writeln!(f, "   UNEXPECTED {example}")?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: &[u64]) -> String {
    let each: Vec<_> = bytes
        .iter()
        .map(|bytes| (bytes >> 20).to_string())
        .collect();
    each.join(" + ")
}

const SLACK: u64 = 4 << 20;
