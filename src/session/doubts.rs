//! What a session has only where its end is in doubt.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Made when it is first needed, and kept for as long as the session lives.
#[derive(Default)]
pub(crate) struct Doubts {
    turn: Arc<Mutex<()>>,
}

impl Doubts {
    /// Waits for a turn at ending the session at its client's word: one after the other, so that one of them ends it and the
    /// others find it ended.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}
