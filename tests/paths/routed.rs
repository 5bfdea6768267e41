//! Where axum's own routers bring a path, with and without the layer.

use std::cell::RefCell;

use axum::Router;
use mcp_session_layer::{McpSessionLayer, MemoryStore};
use proptest::{prelude::*, test_runner::TestCaseError};
use tokio::runtime::{Builder, Runtime};

use crate::{
    oracle::{Verdict, readings, verdict},
    shapes::{SHAPES, Shape, send},
};

/// What came to pass, counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) routed_to_mcp: usize,
    refused: usize,
    untouched: usize,
    pub(crate) untouched_though_odd: usize,
}

/// A router of each shape, bare and layered.
pub(crate) struct Apps {
    runtime: Runtime,
    apps: Vec<(&'static Shape, Router, Router)>,
    counts: RefCell<Counts>,
}

impl Apps {
    pub(crate) fn new() -> Self {
        let runtime = runtime();
        let guard = McpSessionLayer::new(MemoryStore::new());
        let layered = |shape: &Shape| match shape.guarded {
            [] => (shape.build)(Some(guard.clone())),
            paths => (shape.build)(Some(guard.clone().with_paths(paths.iter().copied()))),
        };
        let apps = SHAPES
            .iter()
            .map(|shape| (shape, (shape.build)(None), layered(shape)))
            .collect();
        Self {
            runtime,
            apps,
            counts: RefCell::default(),
        }
    }

    pub(crate) fn counts(self) -> Counts {
        self.counts.into_inner()
    }

    /// Sends a request with a dead id on this path to all of them.
    pub(crate) fn check(&self, path: &str) -> Result<(), TestCaseError> {
        let readings = readings(path);
        let mut counts = self.counts.borrow_mut();
        for (shape, bare, layered) in &self.apps {
            let expected = self.runtime.block_on(send(bare, path));
            let answer = self.runtime.block_on(send(layered, path));
            let name = shape.name;
            let is_refused = answer.body == DEAD;
            if expected.body == "mcp" {
                counts.routed_to_mcp += 1;
                prop_assert!(is_refused, "{}: {} came through", name, path);
                continue;
            }
            let guarded: Vec<_> = shape
                .guarded
                .iter()
                .map(|path| path.trim_end_matches('/'))
                .collect();
            let arrives = verdict(&readings, &guarded, &[]) == Verdict::Arrives;
            if is_refused {
                counts.refused += 1;
                prop_assert!(arrives, "{}: {} was refused", name, path);
            } else {
                counts.untouched += 1;
                counts.untouched_though_odd += usize::from(is_odd(path));
                prop_assert!(
                    !arrives || !shape.is_outside,
                    "{}: {} came through",
                    name,
                    path
                );
                prop_assert_eq!(answer, expected, "{}: {}", name, path);
            }
        }
        Ok(())
    }
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_odd(path: &str) -> bool {
    path.contains(['%', ';', '\\']) || path.contains("/.") || path.contains("//")
}

const DEAD: &str = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
