//! Passing a request to a server and its answer back, neither read nor held up.

use std::{error::Error as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    body::Body,
    extract::Request,
    http::{
        Method, StatusCode, Version,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse as _, Response},
};
use clap::Args;
use hyper_util::client::legacy::Client;
use mcp_session_layer::{Session, Sessions, Values};
use tokio::time::{sleep, timeout};

use super::{
    connect::{self, Connector},
    headers::{self, Inward},
    passing::{Loading, Offered},
    upstream::Upstream,
    upstreams::{Known, Upstreams},
};

#[derive(Args)]
pub(crate) struct ProxyOptions {
    /// A server behind this gateway, as http://HOST:PORT or NAME=http://HOST:PORT. Repeatable: a session stays where it was
    /// created, which it remembers by the name.
    #[arg(long = "upstream", value_name = "[NAME=]URL", required = true)]
    upstreams: Vec<Upstream>,
    /// How long a server may take to begin an answer. No limit, unless this is set: a tool may take minutes.
    #[arg(long, value_parser = humantime::parse_duration)]
    answer_timeout: Option<Duration>,
    /// After how long this node gives up the sessions of a server that it cannot reach, while it reaches another one. Their
    /// clients are told 404 and start over. Never, unless this is set.
    #[arg(long, value_parser = humantime::parse_duration)]
    give_up_after: Option<Duration>,
    /// Trust `X-Forwarded-*` that arrive, which a proxy in front of this gateway writes. Otherwise they are replaced.
    #[arg(long)]
    behind_proxy: bool,
}

#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    client: Client<Connector, Offered>,
    upstreams: Upstreams,
    answer_timeout: Option<Duration>,
    inward: Inward,
}

impl Proxy {
    pub(crate) fn new(options: &ProxyOptions, authenticates: bool) -> anyhow::Result<Self> {
        let upstreams = Upstreams::new(options.upstreams.clone(), options.give_up_after)?;
        for upstream in &options.upstreams {
            Values::of([(UPSTREAM, upstream.name.as_str())]).context("a name is too long")?;
        }
        Ok(Self(Arc::new(Inner {
            client: connect::client(),
            upstreams,
            answer_timeout: options.answer_timeout,
            inward: Inward {
                behind_proxy: options.behind_proxy,
                authenticates,
            },
        })))
    }

    /// The answer of the server that has the session, or of the first that answers where there is none. If the client hangs
    /// up, so does this.
    pub(crate) async fn forward(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let session = head.extensions.remove::<Session>();
        let upstreams = &self.0.upstreams;
        let recorded = session.as_ref().map(Session::values);
        let servers = match recorded.as_ref().and_then(|values| values.get(UPSTREAM)) {
            None => upstreams.by_load(),
            Some(name) => match upstreams.named(name) {
                Some(server) => vec![server],
                None => return gone(),
            },
        };
        // The layer takes back a session that was never recorded: whose it is, only its server can say.
        let is_unrecorded = session.is_none()
            && head.method == Method::DELETE
            && head.headers.contains_key("mcp-session-id");

        let body = Offered::new(body);
        let mut refusal = None;
        for server in servers {
            match self.ask(&server, &head, body.clone()).await {
                Ok(answer) if is_unrecorded && !answer.status().is_success() => {
                    refusal.get_or_insert(answer);
                }
                Ok(mut answer) => {
                    if session.is_none() && upstreams.have_names() {
                        let values = Values::of([(UPSTREAM, server.upstream.name.as_str())]);
                        let values = values.expect("tried at the start");
                        answer.extensions_mut().insert(values);
                    }
                    return answer;
                }
                Err(Failure { answer, is_final }) => {
                    if is_final {
                        return answer;
                    }
                    refusal = Some(answer);
                }
            }
        }
        refusal.unwrap_or_else(|| refuse(StatusCode::BAD_GATEWAY, "the server is away\n"))
    }

    async fn ask(
        &self,
        server: &Arc<Known>,
        head: &Parts,
        body: Offered,
    ) -> Result<Response, Failure> {
        let upstream = &server.upstream;
        let mut head = head.clone();
        let origin = self.0.inward.change(&mut head, upstream);
        let Ok(uri) = upstream.uri(&head.uri) else {
            let text = "no such place on a server\n";
            return Err(Failure::last(refuse(StatusCode::BAD_REQUEST, text)));
        };
        head.uri = uri;
        head.version = Version::HTTP_11;
        head.extensions.clear();

        let load = server.load();
        let answering = self.0.client.request(Request::from_parts(head, body));
        let answer = match self.0.answer_timeout {
            None => answering.await,
            Some(limit) => match timeout(limit, answering).await {
                Ok(answer) => answer,
                Err(_) => {
                    tracing::warn!(upstream = upstream.name, "no answer in time");
                    let text = "no answer in time\n";
                    return Err(Failure::last(refuse(StatusCode::GATEWAY_TIMEOUT, text)));
                }
            },
        };
        let error = match answer {
            Ok(answer) => {
                server.was_reached();
                let (mut head, body) = answer.into_parts();
                headers::change_answer(&mut head, upstream, origin);
                head.version = Version::HTTP_11;
                let body = Body::new(body);
                let body = Loading { body, _load: load };
                return Ok(Response::from_parts(head, Body::new(body)));
            }
            Err(error) => error,
        };
        tracing::warn!(upstream = upstream.name, %error, cause = error.source(), "could not be asked");
        if !error.is_connect() {
            // It may have been asked, so nobody else is.
            server.was_reached();
            let text = "the server broke off\n";
            return Err(Failure::last(refuse(StatusCode::BAD_GATEWAY, text)));
        }
        server.was_not_reached();
        let answer = match connect::took_too_long(&error) {
            true => refuse(StatusCode::GATEWAY_TIMEOUT, "no connection in time\n"),
            false => refuse(StatusCode::BAD_GATEWAY, "the server is away\n"),
        };
        Err(Failure {
            answer,
            is_final: false,
        })
    }
}

/// Ends the sessions of servers that this node has given up, unless another node uses them. For as long as the proxy is there.
pub(crate) async fn end_given_up(proxy: Proxy, sessions: Sessions) {
    let inner = Arc::downgrade(&proxy.0);
    drop(proxy);
    loop {
        sleep(END_EVERY).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let given_up = inner.upstreams.given_up();
        if given_up.is_empty() {
            continue;
        }
        let is_theirs = |session: &Session| {
            let values = session.values();
            let name = values.get(UPSTREAM);
            name.is_some_and(|name| given_up.contains(&name))
        };
        match sessions.end_unused(is_theirs).await {
            Ok(0) => {}
            Ok(ended) => {
                tracing::warn!(?given_up, ended, "ended sessions of servers that are gone");
            }
            Err(error) => {
                tracing::warn!(%error, "could not end sessions of servers that are gone");
            }
        }
    }
}

/// How often it is looked for sessions to end.
const END_EVERY: Duration = Duration::from_secs(5);

/// What a client is told where a server did not answer.
struct Failure {
    answer: Response,
    /// No other server may be asked.
    is_final: bool,
}

impl Failure {
    fn last(answer: Response) -> Self {
        Self {
            answer,
            is_final: true,
        }
    }
}

fn refuse(status: StatusCode, text: &'static str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

/// Marks the answer to a request whose session is on a server that this node has not, or not any more.
#[derive(Clone)]
struct Gone;

/// To the session layer it is a server that is away, which ends nothing: another node may still have it.
fn gone() -> Response {
    let mut answer = refuse(StatusCode::BAD_GATEWAY, "the server is gone\n");
    answer.extensions_mut().insert(Gone);
    answer
}

/// To the client it is the 404 of every dead session, so that it starts over. Outside the session layer.
pub(crate) async fn not_found_if_gone(answer: Response) -> Response {
    if answer.extensions().get::<Gone>().is_none() {
        return answer;
    }
    const NOT_FOUND: &str =
        r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::NOT_FOUND, headers, NOT_FOUND).into_response()
}

/// The value of a session that names its server.
const UPSTREAM: &str = "upstream";
