//! Passing a request to a server and its answer back, neither read nor held up.

use std::{error::Error as _, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, Version, header::CACHE_CONTROL},
    response::{IntoResponse as _, Response},
};
use clap::Args;
use hyper_util::client::legacy::Client;
use tokio::time::timeout;

use super::{
    connect::{self, Connector},
    headers::{self, Inward},
    upstream::Upstream,
};

#[derive(Args)]
pub(crate) struct ProxyOptions {
    /// The server behind this gateway, as http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    upstream: Upstream,
    /// How long a server may take to begin an answer. No limit, unless this is set: a tool may take minutes.
    #[arg(long, value_parser = humantime::parse_duration)]
    answer_timeout: Option<Duration>,
    /// Trust `X-Forwarded-*` that arrive, which a proxy in front of this gateway writes. Otherwise they are replaced.
    #[arg(long)]
    behind_proxy: bool,
}

#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    client: Client<Connector, Body>,
    upstream: Upstream,
    answer_timeout: Option<Duration>,
    inward: Inward,
}

impl Proxy {
    pub(crate) fn new(options: &ProxyOptions, authenticates: bool) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            client: connect::client(),
            upstream: options.upstream.clone(),
            answer_timeout: options.answer_timeout,
            inward: Inward {
                behind_proxy: options.behind_proxy,
                authenticates,
            },
        })))
    }

    /// The server's answer, as it comes. If the client hangs up, so does this.
    pub(crate) async fn forward(&self, request: Request) -> Response {
        let Inner {
            client,
            upstream,
            answer_timeout,
            inward,
        } = &*self.0;
        let (mut head, body) = request.into_parts();
        let origin = inward.change(&mut head, upstream);
        let Ok(uri) = upstream.uri(&head.uri) else {
            return refuse(StatusCode::BAD_REQUEST, "no such place on a server\n");
        };
        head.uri = uri;
        head.version = Version::HTTP_11;
        head.extensions.clear();

        let answering = client.request(Request::from_parts(head, body));
        let answer = match answer_timeout {
            None => answering.await,
            Some(limit) => match timeout(*limit, answering).await {
                Ok(answer) => answer,
                Err(_) => {
                    tracing::warn!(upstream = upstream.name, "no answer in time");
                    return refuse(StatusCode::GATEWAY_TIMEOUT, "no answer in time\n");
                }
            },
        };
        match answer {
            Ok(answer) => {
                let (mut head, body) = answer.into_parts();
                headers::change_answer(&mut head, upstream, origin);
                head.version = Version::HTTP_11;
                Response::from_parts(head, Body::new(body))
            }
            Err(error) => {
                tracing::warn!(upstream = upstream.name, %error, cause = error.source(), "could not be asked");
                match connect::took_too_long(&error) {
                    true => refuse(StatusCode::GATEWAY_TIMEOUT, "no connection in time\n"),
                    false => refuse(StatusCode::BAD_GATEWAY, "the server is away\n"),
                }
            }
        }
    }
}

fn refuse(status: StatusCode, text: &'static str) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}
