//! The servers behind this gateway: which one gets what is new, and which one is away.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use super::{connect, upstream::Upstream};

/// Clones share what is known.
#[derive(Clone)]
pub(crate) struct Upstreams(Arc<Inner>);

struct Inner {
    all: Vec<Arc<Known>>,
    /// How long one may be away before this node gives its sessions up.
    patience: Option<Duration>,
}

/// A server, and what this node knows of it.
pub(crate) struct Known {
    pub(crate) upstream: Upstream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many answers are under way, streams among them.
    load: usize,
    /// When it was last given something that any server could have got.
    chosen: Option<Instant>,
    reached: Option<Instant>,
    away_since: Option<Instant>,
}

impl Upstreams {
    pub(crate) fn new(all: Vec<Upstream>, patience: Option<Duration>) -> anyhow::Result<Self> {
        let mut names = HashSet::new();
        for upstream in &all {
            let name = upstream.name.as_str();
            anyhow::ensure!(names.insert(name), "two servers are called {name}");
        }
        let known = |upstream| {
            Arc::new(Known {
                upstream,
                state: Mutex::default(),
            })
        };
        let inner = Arc::new(Inner {
            all: all.into_iter().map(known).collect(),
            patience,
        });
        if inner.all.len() > 1 {
            tokio::spawn(look_after(Arc::downgrade(&inner)));
        }
        Ok(Self(inner))
    }

    /// Whether a session has to remember where it is. An only server without a name may move.
    pub(crate) fn have_names(&self) -> bool {
        self.0.all.len() > 1 || self.0.all.iter().any(|known| known.upstream.is_named)
    }

    /// All of them, the best for something new first: one that is there before one that is away, then by load, then in turn.
    pub(crate) fn by_load(&self) -> Vec<Arc<Known>> {
        let mut all = self.0.all.clone();
        all.sort_by_cached_key(|known| {
            let state = known.state.lock();
            (state.away_since.is_some(), state.load, state.chosen)
        });
        if let Some(first) = all.first() {
            first.state.lock().chosen = Some(Instant::now());
        }
        all
    }

    /// The one of this name, unless there is none any more, or this node has given it up.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Known>> {
        let all = &self.0.all;
        let known = all.iter().find(|known| known.upstream.name == name)?;
        (!self.has_given_up(known)).then(|| Arc::clone(known))
    }

    /// The names of those that this node has given up.
    pub(crate) fn given_up(&self) -> Vec<&str> {
        let given_up = self.0.all.iter().filter(|known| self.has_given_up(known));
        given_up.map(|known| known.upstream.name.as_str()).collect()
    }

    /// Away for so long, while another one was reached: it is not this node that is cut off.
    fn has_given_up(&self, known: &Arc<Known>) -> bool {
        let Some(patience) = self.0.patience else {
            return false;
        };
        let Some(since) = known.state.lock().away_since else {
            return false;
        };
        let is_there = |other: &Arc<Known>| {
            let state = other.state.lock();
            state.away_since.is_none() && state.reached > Some(since)
        };
        since.elapsed() >= patience && self.0.all.iter().any(is_there)
    }
}

impl Known {
    /// Counts something that it is asked, until the answer is at its end.
    pub(crate) fn load(self: &Arc<Self>) -> Load {
        self.state.lock().load += 1;
        Load(Arc::clone(self))
    }

    pub(crate) fn was_reached(&self) {
        let mut state = self.state.lock();
        state.reached = Some(Instant::now());
        state.away_since = None;
    }

    pub(crate) fn was_not_reached(&self) {
        self.state
            .lock()
            .away_since
            .get_or_insert_with(Instant::now);
    }

    async fn look(self: Arc<Self>) {
        let connecting = TcpStream::connect(self.upstream.address());
        match timeout(connect::PATIENCE, connecting).await {
            Ok(Ok(_)) => self.was_reached(),
            _ => self.was_not_reached(),
        }
    }
}

/// Something that a server was asked.
pub(crate) struct Load(Arc<Known>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.state.lock().load -= 1;
    }
}

/// While one is away, looks whether it is back, and whether the others are there.
async fn look_after(upstreams: Weak<Inner>) {
    let mut turn = interval(LOOK_EVERY);
    loop {
        turn.tick().await;
        let Some(upstreams) = upstreams.upgrade() else {
            return;
        };
        let away = |known: &Arc<Known>| known.state.lock().away_since.is_some();
        if upstreams.all.iter().any(away) {
            let looking: JoinSet<_> = upstreams.all.iter().cloned().map(Known::look).collect();
            drop(upstreams);
            looking.join_all().await;
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
