//! What a session has only where it is in doubt: whether the inner service still knows it, and who ends it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, MutexGuard, OwnedMutexGuard},
    time::Instant,
};

/// Made when it is first needed, and kept for as long as the session lives.
#[derive(Default)]
pub(crate) struct Doubts {
    turn: Arc<Mutex<()>>,
    verdict: Mutex<Option<Kept>>,
}

/// Whether an inner service knows a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Lives,
    Forgotten,
    Undecided,
}

/// A verdict, and on whose credentials it rests.
struct Kept {
    verdict: Verdict,
    credentials: u64,
    until: Instant,
}

impl Doubts {
    /// Waits for a turn at ending the session: one after the other, so that one of them ends it and the others find it
    /// ended.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether somebody is about to end it.
    pub(crate) fn is_being_ended(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Waits for a turn at asking the inner service: whoever comes second finds the verdict of the first.
    pub(crate) async fn ask(&self) -> Asking<'_> {
        Asking(self.verdict.lock().await)
    }

    /// Forgets the verdict: it has been refuted.
    pub(crate) fn forget_verdict(&self) {
        // Whoever is asking just now asks after that.
        if let Ok(mut verdict) = self.verdict.try_lock() {
            *verdict = None;
        }
    }
}

/// The right to ask the inner service.
pub(crate) struct Asking<'d>(MutexGuard<'d, Option<Kept>>);

impl Asking<'_> {
    /// The last verdict, if it is not old and holds for these credentials: to a stranger a session that lives may look
    /// forgotten, but one that lives for anybody lives.
    pub(crate) fn kept(&self, credentials: u64) -> Option<Verdict> {
        let kept = self.0.as_ref()?;
        let holds = kept.verdict == Verdict::Lives || kept.credentials == credentials;
        (holds && Instant::now() < kept.until).then_some(kept.verdict)
    }

    pub(crate) fn keep(&mut self, verdict: Verdict, credentials: u64) {
        let time = match verdict {
            Verdict::Undecided => KEPT_UNDECIDED,
            Verdict::Lives | Verdict::Forgotten => KEPT,
        };
        *self.0 = Some(Kept {
            verdict,
            credentials,
            until: Instant::now() + time,
        });
    }
}

const KEPT: Duration = Duration::from_secs(2);
/// So that one client's bad requests do not double the load of a service that fails anyhow.
const KEPT_UNDECIDED: Duration = Duration::from_secs(1);
