//! The house: rooms import downwards only, no files of a room go in a circle, and each file stays short enough to be read.
//!
//! What is read is names: every path in the code, also inside macros. What is reached through a value alone (a method of
//! something handed over) has no path and is not seen.

mod imports;
mod rules;
mod tree;

mod planted;

use self::{rules::Room, tree::Tree};

/// The rooms of `src/`, ground first. Each may use those that it names, all of which stand above it.
const ROOMS: &[Room] = &[
    Room("metrics", &[]),
    Room("sync", &[]),
    Room("protocol", &[]),
    Room("session", &["protocol", "metrics", "sync"]),
    Room("store", &["session", "protocol", "metrics", "sync"]),
    Room(
        "registry",
        &["store", "session", "protocol", "metrics", "sync"],
    ),
    Room(
        "lifecycle",
        &[
            "registry", "store", "session", "protocol", "metrics", "sync",
        ],
    ),
    // The handle is what the layer gives out, so it stands below.
    Room(
        "handle",
        &[
            "lifecycle",
            "registry",
            "store",
            "session",
            "protocol",
            "sync",
        ],
    ),
    Room(
        "service",
        &[
            "handle",
            "lifecycle",
            "registry",
            "store",
            "session",
            "protocol",
            "sync",
        ],
    ),
    // Beside it, one feature each.
    Room("admin", &["handle", "store", "session", "protocol"]),
    Room("extract", &["session"]),
    Room("cors", &["protocol"]),
    Room("header", &["protocol"]),
    Room(
        "rmcp",
        &["lifecycle", "store", "session", "protocol", "sync"],
    ),
    Room("testing", &["store", "session", "protocol"]),
];

/// Longer files say in their head comment what they are "Long because" of.
const LINES: usize = 400;

/// What belongs into a room is said in so many lines.
const HEAD_LINES: usize = 8;

#[test]
fn no_room_is_above_itself() {
    assert_none("rows", &rules::rows_out_of_order(ROOMS));
}

#[test]
fn rooms_import_downwards() {
    let src = Tree::read("src");
    assert_none("imports", &rules::upward_imports(&src, ROOMS));
}

#[test]
fn no_files_go_in_a_circle() {
    assert_none("circles", &rules::circles(&Tree::read("src")));
}

#[test]
fn locks_and_atomics_come_from_one_place() {
    let src = Tree::read("src");
    assert_none("locks", &rules::locks_from_elsewhere(&src));
}

#[test]
fn every_room_says_what_belongs_there() {
    let src = Tree::read("src");
    assert_none("rooms", &rules::rooms_without_a_head(&src, HEAD_LINES));
}

#[test]
fn files_are_short() {
    for folder in ["src", "tests"] {
        let long = rules::long_files(&Tree::read(folder), LINES);
        assert_none(&format!("files of {folder}/"), &long);
    }
}

#[track_caller]
fn assert_none(what: &str, violations: &[String]) {
    let list = violations.join("\n  ");
    assert!(violations.is_empty(), "{what} that may not be:\n  {list}");
}
