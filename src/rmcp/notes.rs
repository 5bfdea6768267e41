//! What rmcp's answer does not say, said beside it.

use std::cell::Cell;

tokio::task_local! {
    static NOTE: Cell<Option<Note>>;
}

/// Why rmcp's answer is not what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// rmcp does not hold the session.
    NotHere,
    /// The `Last-Event-ID` is not one of this session, or leads to nothing any more.
    UnknownEvent,
}

/// Leaves a note for whoever waits for the answer to the request that is being served.
pub(super) fn leave(note: Note) {
    // Without anybody who waits for it there is nothing to say.
    let _ = NOTE.try_with(|slot| slot.set(Some(note)));
}

/// An answer, and the note that was left while it was made.
pub(super) async fn noted<F: Future>(answer: F) -> (F::Output, Option<Note>) {
    let noted = async {
        let answer = answer.await;
        (answer, NOTE.with(Cell::take))
    };
    NOTE.scope(Cell::new(None), noted).await
}
