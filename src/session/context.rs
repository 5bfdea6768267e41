//! What requests of the layer's own carry besides what every request of a session has.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, request::Parts};

/// What the inner service needs to see to take a request of the layer's own for its caller's: headers and extensions, made of
/// a request that it has served. See [`with_inner_context`](crate::McpSessionLayer::with_inner_context).
///
/// It is kept in memory for as long as its session, on each node that serves it. So headers are copies, for a slice of a
/// request would keep the whole buffer of its connection; what is put into the extensions should not be one either.
#[derive(Clone, Default)]
pub struct InnerContext {
    headers: HeaderMap,
    extensions: Extensions,
}

impl InnerContext {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With all lines of these headers that the request has. 4 KiB are kept at most: of longer ones none is.
    #[must_use]
    pub fn with_headers_of(
        mut self,
        request: &Parts,
        names: impl IntoIterator<Item = HeaderName>,
    ) -> Self {
        let mut room = LONGEST.saturating_sub(self.headers.values().map(HeaderValue::len).sum());
        for name in names {
            let lines = request.headers.get_all(&name);
            let length = lines.iter().map(HeaderValue::len).sum();
            let Some(left) = room.checked_sub(length) else {
                tracing::debug!(%name, length, "too long to be kept for what the layer sends by itself");
                continue;
            };
            room = left;
            self.headers.remove(&name);
            for line in lines {
                self.headers.append(&name, copy(line));
            }
        }
        self
    }

    /// With this header, whatever the request had.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With the extension of this type, if the request has one.
    #[must_use]
    pub fn with_extension_of<T: Clone + Send + Sync + 'static>(self, request: &Parts) -> Self {
        match request.extensions.get::<T>() {
            Some(extension) => self.with_extension(extension.clone()),
            None => self,
        }
    }

    /// With this extension.
    #[must_use]
    pub fn with_extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Puts it on a request that has nothing yet.
    pub(super) fn put_on<B>(&self, request: &mut Request<B>) {
        request.headers_mut().clone_from(&self.headers);
        request.extensions_mut().clone_from(&self.extensions);
    }
}

/// Hides the values: they are secrets.
impl fmt::Debug for InnerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("InnerContext")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// What shares no memory with the original.
pub(super) fn copy(value: &HeaderValue) -> HeaderValue {
    let mut copy =
        HeaderValue::from_bytes(value.as_bytes()).expect("it was a header's value before");
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// Of header values kept for one session, in bytes: clients choose them.
const LONGEST: usize = 4 << 10;
