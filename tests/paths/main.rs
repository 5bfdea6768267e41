//! Which requests a layer with a list of paths guards, held against axum's own router and against a naive list of all
//! readings of a path: no dead id reaches a guarded handler, and no other request notices the layer.

mod oracle;
mod routed;
mod shapes;

use std::cell::RefCell;

use axum::{body::Body, routing};
use http::{Request, StatusCode, Uri};
use mcp_session_layer::{GuardedPaths, McpSessionLayer, MemoryStore};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRng, TestRunner},
};
use tower::{Layer as _, ServiceExt as _};

use self::{
    oracle::{Verdict, readings, verdict},
    routed::{Apps, runtime},
};

/// Spellings that have been mistaken, or could be.
const NASTY: &str = r"
    / /x /mcp /mcp/ /mcp/x /mcp/x/y.z /mcpx /mcp. /MCP /mc /x/mcp //mcp ///mcp /mcp// /./mcp /mcp/. /mcp/..
    /mcp/../x /mcp/../mcp /x/../mcp /../mcp /x//../mcp /x/y/../../mcp/z /mcp/x/../../mcp /%6dcp /%6Dcp
    /m%63p/x /%256dcp /%25256dcp /%25%36%64cp /%%36dcp /mcp%2F /mcp%2fx /mcp%252Fx /%2e/mcp /x/%2E%2e/mcp
    /x/.%2e/mcp /x%2F..%2Fmcp /x%2Fy/../mcp /x%252Fy/../mcp /x/%252e%252e/mcp /x/%25252e%25252e/mcp /mcp%3Fx
    /mcp%23x /mcp%00.html /mcp%5Cx /mcp%20 /m%09cp /mcp%0A /x\..\mcp /x\../mcp /mcp\x /mcp;v=1 /mcp;v=1/x
    /;/mcp /x;/..;/mcp /mcp%3bx /x/..%3b/mcp /z/..%3bx%2Fy/mcp /x%E9/../mcp /x%zz/../mcp /x%zz/%2e%2e/mcp
    /mcp/% /x%/..%2Fmcp /x%c0%af/../mcp /search/100% /search/%zz /search/mcp% /search/caf%E9 /docs/caf%e9.txt
    /docs/caf%C3%A9 /docs/a%20b/mcp /docs;v=1/mcp /docs;v=1/mcp/.. /wiki/../docs/mcp /wiki/x%2Fmcp
    /wiki/..;/mcp /wiki/../mcp /docs/mcp /docs/%6dcp /docs/./mcp /docs//mcp /docs/mcp/x /docs/mcp/../x
    /docs/..%2fmcp /docs/x/..%2f..%2fmcp /docs/mcp%2F.. /docs/%2e%2e/mcp /wiki/%2e%2e/docs/mcp
    /.well-known/oauth-protected-resource/mcp /.well-known/mcp.json /..mcp /... /mcp... /docs/100%25/mcp
    /search/a;mcp /search/; /docs/https://host/mcp /mcp/health /mcp/health/ /mcp/health/x /mcp/healthy
    /mcp/health/.. /mcp/health/../x /mcp/health/../../x /mcp/health/../health /mcp/x/../health /mcp//health
    /mcp/%68ealth /mcp/health%2Fx /mcp/health;x /mcp/health/a%20b /mcp/health/a;b/c//d /mcp/health/%2e%2e/x
    /mcp/health/x/%2e%2e /mcp/health/%252e%252e /mcp/health/100% /mcp/health/..%5cx /mcp/health/x;/..
    /mcp/health/..;/x /mcp/health/% /x/../mcp/health
";

/// Paths of pieces that mean something to somebody.
fn pieces() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "/", "/", "/mcp", "/mcp", "/docs", "/wiki", "/search", "/health", "mcp", "/x", "/y", "..",
        "/..", "/.", "%2F", "%2f", "%252F", "/%2e%2e", "/%252e.", "%6dcp", "/%256dcp", "%", "%25",
        "2e", "6d", "\\", "%5C", ";", ";v=1", "/..;", "%3b", "%00", "%3F", "%23", "%20", "%09",
        "%E9", "%C3%A9", "%zz", "100%", "a", ".",
    ]);
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// A path that leads somewhere, with a few bytes spelled in another way.
fn disguised() -> impl Strategy<Value = String> {
    let path = select(vec![
        "/mcp",
        "/mcp/",
        "/mcp/x/y",
        "/docs/mcp",
        "/docs/mcp/x",
        "/search/x",
        "/docs/x/mcp",
        "/mcp/health/x",
        "/a%20b/x/y",
        "/100%25/x",
        "/mcp/health",
    ]);
    let disguise = prop_oneof![
        4 => Just("escape"),
        4 => select(vec!["/", "/.", "/x/..", "/x//..", "/mcp/..", ";p", "%zz", "/%2e", "/..", "/%E9/..", "\\x\\.."]),
    ];
    let disguises = proptest::collection::vec((disguise, any::<Index>()), 0..5);
    (path, disguises).prop_map(|(path, disguises)| {
        disguises
            .iter()
            .fold(path.to_owned(), |path, (disguise, at)| {
                let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
                match *disguise {
                    "escape" => {
                        let at = at.index(path.len());
                        format!(
                            "{}%{:02x}{}",
                            &path[..at],
                            path.as_bytes()[at],
                            &path[at + 1..]
                        )
                    }
                    _ if slashes.is_empty() => path,
                    what => {
                        let at = slashes[at.index(slashes.len())];
                        format!("{}{what}{}", &path[..at], &path[at..])
                    }
                }
            })
    })
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![pieces(), disguised()].prop_filter("no path of a request", |path| {
        path.parse::<Uri>().is_ok_and(|uri| uri.path() == path)
    })
}

/// Runs a check on the nasty paths and on so many others, always the same ones.
fn check_paths(cases: u32, check: impl Fn(&str) -> Result<(), TestCaseError>) {
    for path in NASTY.split_whitespace() {
        check(path).unwrap();
    }
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let checked = TestRunner::new_with_rng(config, rng).run(&paths(), |path| check(&path));
    checked.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_arrives_is_guarded_and_nothing_else() {
    let apps = Apps::new();
    check_paths(1_500, |path| apps.check(path));
    let counts = apps.counts();
    println!("{counts:?}");
    assert!(
        counts.routed_to_mcp > 2_000 && counts.untouched_though_odd > 10_000,
        "{counts:?}"
    );
}

/// Asks the layer itself, which is quicker, about lists of several paths and paths that are let out.
#[test]
fn what_all_readers_let_out_is_let_out_and_nothing_else() {
    let runtime = runtime();
    let lists: [(&[&str], &[&str]); 5] = [
        (&["/mcp"], &["/mcp/health"]),
        (&["/mcp", "/docs"], &["/docs/x", "/mcp/health", "/mcp/x"]),
        (&["/x/y", "/docs/mcp"], &[]),
        (&["/a%20b", "/100%25"], &["/a%20b/x"]),
        (&["/docs/mcp/x"], &["/docs/mcp/x/health"]),
    ];
    let layers = lists.map(|(guarded, let_out)| {
        let paths = GuardedPaths::new(guarded.iter().copied()).except(let_out.iter().copied());
        let layer = McpSessionLayer::new(MemoryStore::new()).with_paths(paths);
        let spelled = |paths: &[&str]| -> Vec<String> {
            let decoded = |path: &&str| path.replace("%20", " ").replace("%25", "%");
            paths
                .iter()
                .flat_map(|path| [path.to_string(), decoded(path)])
                .collect()
        };
        (
            spelled(guarded),
            spelled(let_out),
            layer.layer(routing::any(async || "through")),
        )
    });
    let counts = RefCell::new([0; 3]);
    check_paths(5_000, |path| {
        let readings = readings(path);
        for (guarded, let_out, service) in &layers {
            let [guarded, let_out] = [guarded, let_out]
                .map(|paths| paths.iter().map(|path| &**path).collect::<Vec<_>>());
            let request = Request::get(path).header("mcp-session-id", "dead");
            let answer = service
                .clone()
                .oneshot(request.body(Body::empty()).unwrap());
            let is_refused = runtime.block_on(answer).unwrap().status() == StatusCode::NOT_FOUND;
            let verdict = verdict(&readings, &guarded, &let_out);
            prop_assert_eq!(
                is_refused,
                verdict == Verdict::Arrives,
                "{}: {:?} but {:?} is {:?}",
                path,
                guarded,
                let_out,
                verdict
            );
            counts.borrow_mut()[verdict as usize] += 1;
        }
        Ok(())
    });
    let [elsewhere, arrives, let_out] = counts.into_inner();
    println!("elsewhere {elsewhere}, arrives {arrives}, let out {let_out}");
    assert!(elsewhere > 10_000 && arrives > 3_000 && let_out > 300);
}
