//! What is shown. Everything that a client named is escaped by the template.

use std::{sync::LazyLock, time::Duration};

use axum::response::Html;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::{
    protocol::SessionRef,
    session::Principal,
    store::{SessionInfo, StoreError},
};

pub(super) struct Page {
    pub(super) ended: Option<u64>,
    pub(super) is_draining: bool,
    pub(super) rows: Result<Rows, StoreError>,
}

/// One page of the list.
pub(super) struct Rows {
    pub(super) count: u64,
    pub(super) listed: Vec<SessionInfo>,
    pub(super) is_first: bool,
    /// After which session the next page begins, if there is one.
    pub(super) next: Option<SessionRef>,
}

impl Page {
    pub(super) fn draw(&self) -> Html<String> {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "MCP sessions" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { "MCP sessions" }
                        (self.drain())
                    }
                    @if let Some(ended) = self.ended {
                        p.notice role="status" {
                            @match ended {
                                0 => "Nothing to end: it was over already.",
                                1 => "1 session ended.",
                                more => { (more) " sessions ended." }
                            }
                        }
                    }
                    @match &self.rows {
                        Ok(rows) => { (rows.draw()) }
                        Err(error) => { p.notice.bad role="alert" { (error) "." } }
                    }
                }
            }
        };
        Html(page.into_string())
    }

    fn drain(&self) -> Markup {
        html! {
            @if self.is_draining {
                p.pill { "Draining: this node creates no sessions" }
            } @else {
                details {
                    summary { "Drain" }
                    form method="post" {
                        p { "This node creates no session from then on, until it is started again. Those that live go on." }
                        button.bad name="do" value="drain" { "Drain this node" }
                    }
                }
            }
        }
    }
}

impl Rows {
    fn draw(&self) -> Markup {
        html! {
            p { strong { (self.count) } " live, in the order of their references." }
            @if !self.listed.is_empty() {
                div.wide {
                    table {
                        thead {
                            tr {
                                th { "Session" } th { "Client" } th { "Principal" }
                                th.number { "Age" } th.number { "Idle left" } th {}
                            }
                        }
                        tbody { @for session in &self.listed { (row(session)) } }
                    }
                }
            }
            nav {
                @if !self.is_first { a href="?" { "First page" } }
                @if let Some(next) = &self.next { a href={ "?after=" (next) } { "Next page" } }
            }
        }
    }
}

fn row(session: &SessionInfo) -> Markup {
    let reference = session.reference.to_string();
    let record = &session.record;
    html! {
        tr {
            td { code title=(reference) { (reference) } }
            td {
                @if let Some(client) = &record.client {
                    bdi.name { (client.name) } " " bdi.name.weak { (client.version) }
                } @else {
                    span.weak { "unknown" }
                }
            }
            td { (principal(record.owner.principal.as_ref())) }
            td.number { (short(session.age)) }
            td.number { (short(session.idle_left)) }
            td {
                form method="post" {
                    input type="hidden" name="session" value=(reference);
                    button name="do" value="end" { "End" }
                }
            }
        }
    }
}

fn principal(principal: Option<&Principal>) -> Markup {
    html! {
        @if let Some(principal) = principal {
            details {
                summary { bdi.name { (principal.as_str()) } }
                form method="post" {
                    input type="hidden" name="principal" value=(principal.as_str());
                    button.bad name="do" value="end_all" { "End all of theirs" }
                }
            }
        } @else {
            span.weak { "anonymous" }
        }
    }
}

/// In its two largest units.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The one style is allowed by its digest.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    policy.try_into().expect("a digest is plain text")
});

const STYLE: &str = "
:root { color-scheme: light dark; --line: light-dark(#d8dce3, #3a404b); --weak: light-dark(#5c6470, #9aa3b2);
  --bad: light-dark(#b3261e, #ff8a80); --paper: light-dark(#fff, #16181d); --tint: light-dark(#f4f6f9, #20242c) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper) }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; flex-wrap: wrap }
h1 { font-size: 1.4rem; margin: 0 }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100% }
th, td { padding: .5rem .75rem; text-align: left; vertical-align: top }
th { font-weight: 600; font-size: .85rem; color: var(--weak); background: var(--tint); white-space: nowrap }
tbody tr { border-top: 1px solid var(--line) }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
code { display: block; max-width: 13ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; line-height: 1.6 }
.name { overflow-wrap: anywhere; display: inline-block; max-width: 30ch; max-height: 4.5em; overflow: hidden; vertical-align: top }
.weak { color: var(--weak) }
form { margin: 0 } details form { padding: .5rem 0 } summary { cursor: pointer }
header details form { max-width: 22rem }
button { font: inherit; padding: .1rem .7rem; border: 1px solid var(--line); border-radius: 6px; background: var(--tint); color: inherit; cursor: pointer }
button.bad, .notice.bad { color: var(--bad); border-color: var(--bad) }
.notice { padding: .5rem .75rem; border: 1px solid var(--line); border-radius: 8px; background: var(--tint) }
.pill { margin: 0; padding: .1rem .8rem; border: 1px solid var(--bad); border-radius: 99px; color: var(--bad) }
nav { display: flex; gap: 1rem; margin: 1rem 0 }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_short() {
        let shorts = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3660, "1 h 1 min"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ];
        for (seconds, text) in shorts {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
