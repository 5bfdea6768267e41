//! The reference: what sessions there are, and which answers about them are right. It knows nothing of how the layer does it.
//!
//! Where more than one thing may happen (the store has a fault, time runs out meanwhile, a keeper touches in its own time) it
//! keeps what is possible, and after each step takes over what the store then shows, if that is possible.

use std::{collections::BTreeMap, time::Duration};

use mcp_session_layer::store::EndReason;

use crate::steps::{Fault, Request, User, Verbs, World};

mod answers;
mod arrivals;
mod creation;
mod ends;
mod time;

pub(crate) use self::{answers::Seen, ends::Whose};

/// Right, or what is wrong.
pub(crate) type Judgement = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// Time since the beginning.
pub(crate) type Time = Duration;

/// From when to when something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct During {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// How a request came to the inner service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) id: Option<String>,
    /// Id and principal.
    pub(crate) session: Option<(String, Option<String>)>,
}

/// A session as the store shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) principal: Option<String>,
    pub(crate) until: Time,
    pub(crate) end_of_life: Option<Time>,
}

pub(crate) struct Reference {
    world: World,
    pub(crate) sessions: Vec<Known>,
    /// Requests whose answer is still to come.
    pub(crate) under_way: BTreeMap<u64, Pending>,
    pub(crate) streams: BTreeMap<u64, Open>,
    fault: Vec<(Verbs, Fault)>,
    /// Until when the consequences of faults may last.
    troubled_until: Time,
    /// When the process last went on after it was stopped.
    stopped_until: Time,
    /// How many times each inner service has to be told, or may be, of the end of a session, by its id.
    tells: BTreeMap<(usize, String), Tells>,
    /// How many sessions the store may have that nobody got.
    pub(crate) limbo: u64,
}

/// A session that was created.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: String,
    pub(crate) owner: User,
    is_layers: bool,
    node: usize,
    born: During,
    /// When its time is up, unless it is used: between these two.
    pub(crate) until: During,
    end_of_life: Option<During>,
    /// Nobody took the answer that brought its id: it ends then.
    lost: Option<(Time, Loss)>,
    /// A node has been asked to end it and could not reach the store: it ends some time.
    doomed: Option<EndReason>,
    /// Its last use ended while the store was away: a touch may still come.
    owes_touch: bool,
    /// A node that made room for another may have ended it.
    evictable: Option<usize>,
    claimed: Option<Time>,
    pub(crate) end: Option<End>,
    pub(crate) on: [On; 2],
}

impl Known {
    /// Whether a node may not have heard yet whose it is now.
    pub(crate) fn is_strange(&self, node: usize) -> bool {
        let on = &self.on[node];
        self.claimed.is_some() && on.was_here && !on.knows_claim
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Certain,
    Possible,
}

/// The end of a session.
#[derive(Debug)]
pub(crate) struct End {
    at: During,
    reasons: Vec<EndReason>,
    /// Which node ended it, if one did.
    by: Option<usize>,
}

/// A session on a node.
#[derive(Debug, Default)]
pub(crate) struct On {
    /// A request came that far.
    pub(crate) was_here: bool,
    /// The inner service has answered on it.
    is_served: bool,
    was_created: bool,
    knows_claim: bool,
    pub(crate) is_forgotten: bool,
    /// The inner service seems to have forgotten it.
    is_marked: bool,
    /// It is refused whatever the store says.
    is_refused: bool,
    /// The inner service knows of its end by itself.
    inner_knows_end: bool,
    /// Until when the last word on whether it lives may be repeated.
    lives_until: Time,
    gone_until: Time,
    created_events: u64,
    ended_events: Vec<EndReason>,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    session: Option<usize>,
    came: Came,
    begun: Begun,
    /// All sessions of its owner were ended since it began.
    is_revoked: bool,
    pub(crate) has_hung_up: bool,
}

/// What a session was when a use of it began.
#[derive(Debug, Clone, Copy)]
struct Begun {
    is_claimed: bool,
    is_marked: bool,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    In,
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Gone,
    Away,
    GoneOrAway,
    Full,
    Missing,
    Doubled,
}

/// A stream that its client reads.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) node: usize,
    pub(crate) session: usize,
    begun: Begun,
    pub(crate) is_over: bool,
}

#[derive(Debug, Default)]
struct Tells {
    least: u64,
    most: u64,
    heard: u64,
}

impl Reference {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            sessions: Vec::new(),
            under_way: BTreeMap::new(),
            streams: BTreeMap::new(),
            fault: Vec::new(),
            troubled_until: Time::ZERO,
            stopped_until: Time::ZERO,
            tells: BTreeMap::new(),
            limbo: 0,
        }
    }

    pub(crate) fn disturb(&mut self, verbs: Verbs, fault: Fault) {
        self.fault.push((verbs, fault));
    }

    pub(crate) fn recover(&mut self, now: Time) {
        if !self.fault.is_empty() {
            self.troubled_until = now + AFTERMATH;
        }
        self.fault.clear();
    }

    pub(crate) fn has_fault(&self) -> bool {
        !self.fault.is_empty()
    }

    fn is_troubled(&self, time: During) -> bool {
        !self.fault.is_empty() || time.from < self.troubled_until
    }

    /// The fault that was made last of those that a verb has.
    fn fault_of(&self, verb: Verbs) -> Option<Fault> {
        let mut faults = self.fault.iter().rev();
        let fault = faults.find(|(verbs, _)| *verbs == verb || *verbs == Verbs::All);
        fault.map(|(_, fault)| *fault)
    }

    fn fault_of_all(&self) -> Option<Fault> {
        let mut faults = self.fault.iter().rev();
        let fault = faults.find(|(verbs, _)| *verbs == Verbs::All);
        fault.map(|(_, fault)| *fault)
    }

    /// The inner service of this node has forgotten what lives now, and says so. Answers the ids.
    pub(crate) fn forget(&mut self, node: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for session in &mut self.sessions {
            session.on[node].is_forgotten = true;
            ids.push(session.id.clone());
        }
        ids
    }

    pub(crate) fn remember(&mut self, node: usize) {
        for session in &mut self.sessions {
            session.on[node].is_forgotten = false;
        }
    }

    /// A node that knows nothing yet stands where this one was. Its clients' connections are gone.
    pub(crate) fn restart(&mut self, node: usize, time: During) {
        self.under_way
            .retain(|_, pending| pending.request.node != node);
        self.streams.retain(|_, stream| stream.node != node);
        self.tells.retain(|(at, _), _| *at != node);
        let is_troubled = self.is_troubled(time);
        for session in &mut self.sessions {
            // A call of the old node's may still be on its way.
            session.owes_touch |= is_troubled && session.on[node].was_here;
            session.on[node] = On::default();
            if session.node == node {
                // Who was to notice that nobody took its id is gone.
                session.lost = session.lost.map(|(at, _)| (at, Loss::Possible));
            }
            session.until.to = session.until.to.max(time.to + self.world.idle());
        }
    }

    /// Whether somebody makes this session their own by a request on it.
    fn claims(&self, session: usize, user: User) -> bool {
        let owner = self.sessions[session].owner;
        self.world.claims && owner == User::Nobody && user != User::Nobody
    }

    /// Whether a request on a session is being answered, or a stream is open on it.
    fn is_in_use(&self, session: usize) -> bool {
        self.uses(session, |_| true)
    }

    /// The same, so that it is touched for it: not for what began before it was claimed, nor on a node whose inner service
    /// seems to have forgotten it.
    fn is_kept_in_use(&self, session: usize) -> bool {
        let is_claimed = self.sessions[session].claimed.is_some();
        self.uses(session, |begun| {
            begun.is_claimed == is_claimed && !begun.is_marked
        })
    }

    fn uses(&self, session: usize, counts: impl Fn(Begun) -> bool) -> bool {
        let mut pending = self.under_way.values();
        let mut streams = self.streams.values();
        pending.any(|p| p.session == Some(session) && p.came == Came::In && counts(p.begun))
            || streams.any(|s| s.session == session && !s.is_over && counts(s.begun))
    }
}

/// For so long faults may have consequences: the layer tries again after ten seconds at the latest, and then waits three.
const AFTERMATH: Duration = Duration::from_secs(15);

/// A new session without any request lives no longer than this.
const NEWBORN: Duration = Duration::from_secs(5 * 60);

/// What happens at once has happened after this.
const AT_ONCE: Duration = Duration::from_millis(10);
