//! A layer's settings and their defaults.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use axum::{BoxError, extract::OriginalUri};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, request::Parts};

use super::{CreationRates, SigningKeys, buffered::DEFAULT_BODY_LIMIT, signed_ids::WireId};
use crate::{
    protocol::{
        Credentials, Head, RejectionKind, SESSION_ID, SessionId, paths::GuardedPaths,
        rejection::Renderer, request::Rules,
    },
    session::{InnerContext, Owner, Principal, Route, Scope, Upstream, Values},
    store::{AtLimit, Terms},
};

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) paths: GuardedPaths,
    pub(crate) rules: Rules,
    /// The longest request body that is read in order to decide, in bytes.
    pub(crate) body_limit: usize,
    /// Which revisions the inner service speaks, for a client that asks for another one.
    pub(crate) supported: Arc<[String]>,
    /// The owner of sessions without a principal.
    pub(crate) anonymous: Owner,
    pub(crate) principal: Option<PrincipalOf>,
    pub(crate) claims: bool,
    pub(crate) signed_ids: Option<Arc<SigningKeys>>,
    pub(crate) values: Option<ValuesOf>,
    pub(crate) idle: Duration,
    pub(crate) life: Option<Duration>,
    pub(crate) total: NonZeroU64,
    /// Of these so many only for principals.
    pub(crate) reserved: Option<u64>,
    pub(crate) per_principal: Option<NonZeroU64>,
    pub(crate) rates: CreationRates,
    pub(crate) evicts: bool,
    pub(crate) renderer: Option<Renderer>,
    pub(crate) keeps_params: bool,
    pub(crate) forwards_issued: bool,
    /// The statuses that may say that the inner service has forgotten a session.
    pub(crate) forgotten: Arc<[StatusCode]>,
    /// Where callers carry credentials, besides the usual headers.
    pub(crate) credentials: Arc<[HeaderName]>,
    /// What is notified of ends, if not what the layer wraps.
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// What is kept of a request for what the layer sends by itself.
    pub(crate) inner_context: Option<InnerContextOf>,
    /// Which requests that name no live session may create one all the same.
    pub(crate) resends: Option<ResendsOf>,
}

type PrincipalOf = Arc<dyn Fn(&Parts) -> Result<Option<Principal>, BoxError> + Send + Sync>;
type InnerContextOf = Arc<dyn Fn(&Parts) -> InnerContext + Send + Sync>;
type ResendsOf = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
type ValuesOf = Arc<dyn Fn(&Parts) -> Result<Values, BoxError> + Send + Sync>;

impl Settings {
    /// Whether a request goes to a guarded path, as it is spelled here or as it came to the outermost router.
    #[inline(always)]
    pub(crate) fn guards(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        // A nested router takes its prefix away and keeps where the request went.
        self.paths.guards(path)
            || parts
                .extensions
                .get::<OriginalUri>()
                .map(|original| original.path())
                .is_some_and(|original| {
                    !std::ptr::eq(original, path) && self.paths.guards(original)
                })
    }

    /// Who sends a request.
    ///
    /// # Errors
    ///
    /// When the application cannot tell.
    #[inline]
    pub(crate) fn caller(&self, parts: &Parts) -> Result<Owner, RejectionKind> {
        let Some(principal) = &self.principal else {
            return Ok(self.anonymous.clone());
        };
        let principal = principal(parts).map_err(|error| {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "could not tell who the caller is"
            );
            RejectionKind::PrincipalFailed
        })?;
        Ok(Owner {
            scope: self.anonymous.scope.clone(),
            principal,
        })
    }

    /// The values that a session gets from the request that creates it.
    ///
    /// # Errors
    ///
    /// When the application cannot tell.
    pub(crate) fn values(&self, parts: &Parts) -> Result<Values, RejectionKind> {
        let Some(values) = &self.values else {
            return Ok(Values::default());
        };
        values(parts).map_err(|error| {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "could not tell the values of a session"
            );
            RejectionKind::ValuesFailed
        })
    }

    /// A new session's id as its client gets it.
    pub(super) fn id_header(&self, owner: &Owner, id: &SessionId) -> HeaderValue {
        match &self.signed_ids {
            Some(keys) => keys.header(owner, id),
            None => id.to_header(),
        }
    }

    /// The id of a request of this caller, without its tag, if that proves that it was issued to it. From here on the request
    /// has that id, and what it came with is kept for its answer.
    pub(crate) fn verify_id(&self, caller: &Owner, parts: &mut Parts) -> Option<SessionId> {
        let wire = parts.headers.get(&SESSION_ID)?;
        let mut owners = vec![caller.clone()];
        if self.may_claim(caller) {
            // It may have been created before the login. Whose it is now the store says.
            owners.push(self.anonymous.clone());
        }
        let keys = self.signed_ids.as_ref()?;
        let id = keys.verify(wire.as_bytes(), &owners)?;
        let wire = parts.headers.insert(&SESSION_ID, id.to_header())?;
        parts.extensions.insert(WireId(wire));
        Some(id)
    }

    /// What a head that has been read already says of its sender's credentials. `None` if it takes
    /// [more](Self::credentials_of) than that.
    #[inline]
    pub(crate) fn credentials_at_first_sight(
        &self,
        head: &Head<'_>,
        uri: &Uri,
    ) -> Option<Credentials> {
        match self.credentials.is_empty() {
            true => Credentials::at_first_sight(head, uri),
            false => None,
        }
    }

    /// What a request's sender is known by inside; nothing where nobody will ask.
    #[cold]
    pub(crate) fn credentials_of(&self, parts: &Parts) -> Credentials {
        match self.forgotten.is_empty() {
            true => Credentials::None,
            false => Credentials::read(&parts.headers, &parts.uri, &self.credentials),
        }
    }

    /// The route of this request, if it differs from those of others by what is kept of it.
    pub(crate) fn own_route(&self, route: &Route, parts: &Parts) -> Option<Arc<Route>> {
        let context = self.inner_context.as_ref()?;
        Some(Arc::new(route.with_context(context(parts))))
    }

    /// Whether a request that was to be refused may create a session all the same.
    pub(crate) fn may_resend(&self, kind: RejectionKind, parts: &Parts) -> bool {
        self.resends.as_ref().is_some_and(|picks| {
            let is_dead = kind.status() == StatusCode::NOT_FOUND;
            is_dead && parts.method == Method::POST && picks(parts)
        })
    }

    /// On what terms a session of this owner is created, which takes so long already.
    pub(crate) fn terms(&self, owner: &Owner, started_ago: Duration) -> Terms {
        // Where nobody has a principal nothing is kept for principals.
        let reserved = match (&self.principal, &owner.principal) {
            (Some(_), None) => self.reserved.unwrap_or(self.total.get() / RESERVED_PART),
            _ => 0,
        };
        let total = self.total.get().saturating_sub(reserved).max(1);
        Terms {
            idle: self.idle,
            initial_idle: INITIAL_IDLE.min(self.idle),
            life: self.life,
            total: NonZeroU64::new(total),
            per_principal: self.per_principal,
            at_limit: match self.evicts {
                true => AtLimit::Evict {
                    unused: UNUSED.min(self.untouched()),
                    untouched: self.untouched(),
                },
                false => AtLimit::Refuse,
            },
            started_ago,
        }
    }

    /// How long untouched a session has to be to be evicted.
    pub(crate) fn untouched(&self) -> Duration {
        self.beat().saturating_mul(2)
    }

    /// Whether a caller may make an anonymous session its own.
    pub(crate) fn may_claim(&self, caller: &Owner) -> bool {
        self.claims && caller.principal.is_some()
    }

    /// How often a session in use is touched.
    pub(crate) fn beat(&self) -> Duration {
        self.idle / 3
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: GuardedPaths::default(),
            rules: Rules::default(),
            body_limit: DEFAULT_BODY_LIMIT,
            supported: Arc::default(),
            anonymous: Owner {
                scope: Scope::default(),
                principal: None,
            },
            principal: None,
            claims: false,
            signed_ids: None,
            values: None,
            idle: Duration::from_secs(60 * 60),
            life: None,
            total: NonZeroU64::new(100_000).expect("not zero"),
            reserved: None,
            per_principal: None,
            rates: CreationRates::default(),
            evicts: true,
            renderer: None,
            keeps_params: false,
            forwards_issued: false,
            forgotten: Arc::new([
                StatusCode::BAD_REQUEST,
                StatusCode::NOT_FOUND,
                StatusCode::UNPROCESSABLE_ENTITY,
                StatusCode::INTERNAL_SERVER_ERROR,
            ]),
            credentials: Arc::default(),
            upstream: None,
            inner_context: None,
            resends: None,
        }
    }
}

/// A sixteenth of all sessions are only for principals, unless set.
const RESERVED_PART: u64 = 16;

/// How long a session has for its first request before it may be evicted.
const UNUSED: Duration = Duration::from_secs(30);

/// How long a session may be idle that has seen no request since its creation.
const INITIAL_IDLE: Duration = Duration::from_secs(5 * 60);
