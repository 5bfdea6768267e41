//! What may happen, step by step. A step names sessions, held requests and streams by a number that is taken modulo how many
//! there are, so that every list of steps is one that can be run, also after some were left out.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::select};
use serde::{Deserialize, Serialize};

/// A world and what happens in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) steps: Vec<Step>,
}

/// Whose word decides, and on what terms sessions live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) store: Store,
    /// In seconds.
    pub(crate) idle: u64,
    /// In seconds.
    pub(crate) life: Option<u64>,
    /// `with_claim_on_login`.
    pub(crate) claims: bool,
    /// How many sessions a principal may have.
    pub(crate) at_most: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Store {
    /// One node, which is answered from its own memory.
    Memory,
    /// Two nodes over one remote store.
    Shared,
    /// The same without a feed: each finds out by asking.
    Deaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Send(Request),
    /// The inner service answers a request that it held.
    Release(usize),
    /// The client of a held request goes away.
    HangUp(usize),
    /// A client closes its stream.
    Close(usize),
    /// The inner service ends a stream.
    Finish(usize),
    /// An operator ends a session.
    End(usize, usize),
    /// An operator ends somebody's sessions.
    EndOf(usize, User),
    EndAll(usize),
    /// So many milliseconds pass.
    Wait(u64),
    /// Time passes until a session's time is up, or a millisecond before.
    Edge(usize, bool),
    /// The process is stopped for so many milliseconds: the clock goes on, and nobody looks at it.
    Sleep(u64),
    Disturb(Verbs, Fault),
    Recover,
    /// The inner service of a node forgets its sessions.
    Forget(usize),
    /// It has them again.
    Remember(usize),
    /// The node is killed, and another one takes its place.
    Restart(usize),
}

/// A client's request, and what the inner service makes of it if it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) node: usize,
    pub(crate) user: User,
    /// In place of that user, whoever has the session.
    pub(crate) is_owners: bool,
    pub(crate) what: What,
    pub(crate) says: Says,
    /// The inner service takes its time. If not, an answer that brings an id does not arrive.
    pub(crate) flow: Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum User {
    Nobody,
    Alice,
    Bob,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    Initialize,
    /// A call on a session.
    Call(usize),
    /// A GET of a session's stream.
    Open(usize),
    Delete(usize),
    /// A call of a revision without sessions that carries a session's id all the same.
    Modern(usize),
    /// A call with a session's id to a path that is not guarded.
    Aside(usize),
    /// A call without an id.
    Bare,
    /// A call with an id that nobody has.
    Unknown,
    /// A call with two ids.
    Doubled(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Says {
    /// What was asked for.
    Result,
    /// The same without a session id.
    Silent,
    /// A JSON-RPC error with status 200.
    Error,
    /// With an id that is not this session's; to `initialize`, with one that is none.
    Stray,
    /// 404, and a JSON-RPC error that is no matter of the session; to a DELETE 405.
    Refused,
    /// 500.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flow {
    Through,
    /// The inner service takes its time.
    Held,
    /// The answer is dropped unread.
    Lost,
}

/// Which of the store's methods have a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verbs {
    All,
    Touch,
    Create,
    Delete,
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    Away,
    /// It takes effect, and its answer is lost.
    Lost,
    Hangs,
}

impl World {
    pub(crate) fn nodes(&self) -> usize {
        match self.store {
            Store::Memory => 1,
            Store::Shared | Store::Deaf => 2,
        }
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle)
    }
}

impl User {
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Nobody => None,
            Self::Alice => Some("alice"),
            Self::Bob => Some("bob"),
        }
    }

    pub(crate) fn of(name: Option<&str>) -> Self {
        let all = [Self::Nobody, Self::Alice, Self::Bob];
        let mut named = all.into_iter().filter(|user| user.name() == name);
        named.next().expect("one of these")
    }
}

impl What {
    /// The session whose id it carries.
    pub(crate) fn session(self) -> Option<usize> {
        match self {
            Self::Call(session)
            | Self::Open(session)
            | Self::Delete(session)
            | Self::Modern(session)
            | Self::Aside(session)
            | Self::Doubled(session) => Some(session),
            Self::Initialize | Self::Bare | Self::Unknown => None,
        }
    }

    /// The same of the session with this number.
    pub(crate) fn of(self, session: usize) -> Self {
        match self {
            Self::Call(_) => Self::Call(session),
            Self::Open(_) => Self::Open(session),
            Self::Delete(_) => Self::Delete(session),
            Self::Modern(_) => Self::Modern(session),
            Self::Aside(_) => Self::Aside(session),
            Self::Doubled(_) => Self::Doubled(session),
            other => other,
        }
    }
}

fn number() -> impl Strategy<Value = usize> {
    0..6usize
}

fn node() -> impl Strategy<Value = usize> {
    0..2usize
}

fn user() -> impl Strategy<Value = User> {
    select(&[User::Nobody, User::Alice, User::Bob][..])
}

fn request() -> impl Strategy<Value = Request> {
    let what = prop_oneof![
        6 => Just(What::Initialize),
        12 => number().prop_map(What::Call),
        4 => number().prop_map(What::Open),
        3 => number().prop_map(What::Delete),
        1 => number().prop_map(What::Modern),
        1 => number().prop_map(What::Aside),
        1 => select(&[What::Bare, What::Unknown][..]),
        1 => number().prop_map(What::Doubled),
    ];
    let says = prop_oneof![
        6 => Just(Says::Result),
        1 => select(&[Says::Silent, Says::Error, Says::Stray][..]),
        1 => select(&[Says::Refused, Says::Broken][..]),
    ];
    let flow = prop_oneof![5 => Just(Flow::Through), 2 => Just(Flow::Held), 1 => Just(Flow::Lost)];
    (node(), user(), any::<bool>(), what, says, flow).prop_map(
        |(node, user, is_owners, what, says, flow)| Request {
            node,
            user,
            is_owners,
            what,
            says,
            flow,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let verbs = &[
        Verbs::All,
        Verbs::Touch,
        Verbs::Create,
        Verbs::Delete,
        Verbs::Expire,
    ][..];
    let fault = select(&[Fault::Away, Fault::Lost, Fault::Hangs][..]);
    let ms = || prop_oneof![3 => 0..3_000u64, 2 => 0..60_000u64, 1 => 0..1_000_000u64];
    prop_oneof![
        24 => request().prop_map(Step::Send),
        4 => number().prop_map(Step::Release),
        1 => number().prop_map(Step::HangUp),
        1 => number().prop_map(Step::Close),
        1 => number().prop_map(Step::Finish),
        1 => (node(), number()).prop_map(|(node, session)| Step::End(node, session)),
        1 => (node(), user()).prop_map(|(node, user)| Step::EndOf(node, user)),
        1 => node().prop_map(Step::EndAll),
        4 => ms().prop_map(Step::Wait),
        5 => (number(), any::<bool>()).prop_map(|(session, at)| Step::Edge(session, at)),
        1 => ms().prop_map(Step::Sleep),
        1 => (select(verbs), fault).prop_map(|(verbs, fault)| Step::Disturb(verbs, fault)),
        2 => Just(Step::Recover),
        1 => node().prop_map(Step::Forget),
        1 => node().prop_map(Step::Remember),
        1 => node().prop_map(Step::Restart),
    ]
}

/// Stories of at most so many steps.
pub(crate) fn story(store: Store, steps: usize) -> impl Strategy<Value = Story> {
    let world = (
        select(&[60, 200, 600][..]),
        select(&[None, None, Some(500), Some(1_500)][..]),
        any::<bool>(),
        select(&[None, Some(2)][..]),
    );
    (world, vec(step(), 1..=steps)).prop_map(move |((idle, life, claims, at_most), steps)| Story {
        world: World {
            store,
            idle,
            life,
            claims,
            at_most,
        },
        steps,
    })
}
