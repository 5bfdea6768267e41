//! The session manager around rmcp's: it knows which sessions are here, and names their events.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project_lite::pin_project;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::{
        RestoreOutcome, SessionId, SessionManager,
        session::{EventStore, ServerSseMessage},
    },
};

use super::{
    events::{Kind, Opens, Tagger},
    notes::{self, Note},
    places::Places,
};

pub(super) struct Manager<M> {
    pub(super) inner: Arc<M>,
    pub(super) places: Arc<Places>,
}

impl<M: SessionManager> Manager<M> {
    fn tagged<S>(&self, id: &str, kind: Kind, stream: S) -> Tagged<S> {
        Tagged {
            stream,
            tagger: self.places.tagger(id),
            kind,
            already_sent: None,
        }
    }
}

impl<M: SessionManager> SessionManager for Manager<M> {
    type Error = ManagerError<M::Error>;
    type Transport = M::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let (id, transport) = self
            .inner
            .create_session()
            .await
            .map_err(ManagerError::Inner)?;
        self.places.enter(&id);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.inner
            .initialize_session(id, message)
            .await
            .map_err(ManagerError::Inner)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        let has = self
            .inner
            .has_session(id)
            .await
            .map_err(ManagerError::Inner)?;
        if !has {
            self.places.leave(id);
            notes::leave(Note::NotHere);
        }
        Ok(has)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.places.leave(id);
        self.inner
            .close_session(id)
            .await
            .map_err(ManagerError::Inner)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self
            .inner
            .create_stream(id, message)
            .await
            .map_err(ManagerError::Inner)?;
        Ok(self.tagged(id, Kind::Answer, stream))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.inner
            .accept_message(id, message)
            .await
            .map_err(ManagerError::Inner)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self
            .inner
            .create_standalone_stream(id)
            .await
            .map_err(ManagerError::Inner)?;
        Ok(self.tagged(id, Kind::Standalone, stream))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let tagger = self.places.tagger(id);
        let opens = tagger.as_ref().map(|tagger| tagger.read(&last_event_id));
        let stream: Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>> = match opens {
            Some(Opens::Rest { event, kind }) => {
                match self.inner.resume(id, event.to_owned()).await {
                    Ok(stream) => Box::pin(Tagged {
                        already_sent: Some(event.to_owned()),
                        ..self.tagged(id, kind, stream)
                    }),
                    Err(error) => {
                        notes::leave(Note::UnknownEvent);
                        return Err(ManagerError::Inner(error));
                    }
                }
            }
            Some(Opens::Anew) => Box::pin(self.create_standalone_stream(id).await?),
            Some(Opens::Nothing) | None => {
                notes::leave(Note::UnknownEvent);
                return Err(ManagerError::UnknownEvent);
            }
        };
        Ok(stream)
    }

    async fn restore_session(
        &self,
        id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        self.inner
            .restore_session(id)
            .await
            .map_err(ManagerError::Inner)
    }

    fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        self.inner.event_store()
    }
}

#[derive(Debug)]
pub(super) enum ManagerError<E> {
    Inner(E),
    UnknownEvent,
}

impl<E: fmt::Display> fmt::Display for ManagerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::UnknownEvent => f.write_str("no event of this session"),
        }
    }
}

impl<E: Error> Error for ManagerError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner(error) => error.source(),
            Self::UnknownEvent => None,
        }
    }
}

pin_project! {
    /// A stream whose events say which session they are of.
    struct Tagged<S> {
        #[pin]
        stream: S,
        tagger: Option<Arc<Tagger>>,
        kind: Kind,
        // rmcp (3.9 to 3.11) begins with the event that the client says it has.
        already_sent: Option<String>,
    }
}

impl<S: Stream<Item = ServerSseMessage>> Stream for Tagged<S> {
    type Item = ServerSseMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
        let mut this = self.project();
        let mut event = ready!(this.stream.as_mut().poll_next(cx));
        if let Some(sent) = this.already_sent.take()
            && event
                .as_ref()
                .is_some_and(|event| event.event_id.as_ref() == Some(&sent))
        {
            event = ready!(this.stream.poll_next(cx));
        }
        if let Some(event) = &mut event {
            // An id that says nothing of its session does not go out.
            let id = event.event_id.take();
            let tagger = this.tagger.as_ref();
            event.event_id = tagger
                .zip(id)
                .map(|(tagger, id)| tagger.tag(*this.kind, &id));
        }
        Poll::Ready(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.stream.size_hint();
        let skipped = usize::from(self.already_sent.is_some());
        (least.saturating_sub(skipped), most)
    }
}
