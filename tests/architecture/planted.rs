//! The rules, tried on small houses with one thing wrong.

use crate::{
    rules::{
        Room, circles, locks_from_elsewhere, long_files, rooms_without_a_head, rows_out_of_order,
        upward_imports,
    },
    tree::Tree,
};

const ROOMS: &[Room] = &[
    Room("ground", &[]),
    Room("middle", &["ground"]),
    Room("top", &["middle", "ground"]),
];

/// A sound house, with one file replaced or added.
fn house(file: &str, text: &str) -> Tree {
    let mut house = Tree::of(&[
        (
            "lib.rs",
            "mod ground; mod middle; mod top; pub use self::top::Top; pub use self::ground::Ground;",
        ),
        ("ground.rs", "//! Ground.\npub struct Ground;"),
        ("middle/mod.rs", "//! Middle.\nmod deep; mod part;"),
        ("middle/part.rs", "use crate::ground::Ground;"),
        ("middle/deep/mod.rs", "use super::part::Part; mod well;"),
        (
            "middle/deep/well.rs",
            "use crate::{ground::{self, Ground}};",
        ),
        (
            "top/mod.rs",
            "//! Top.\nuse crate::{ground, middle::part::Part}; pub struct Top;",
        ),
    ]);
    house.0.insert(file.to_owned(), text.to_owned());
    house
}

fn upward_in(file: &str, text: &str) -> Vec<String> {
    upward_imports(&house(file, text), ROOMS)
}

#[test]
fn a_sound_house_has_nothing_wrong() {
    let house = house("middle/part.rs", "use crate::ground::Ground;");
    assert_eq!(upward_imports(&house, ROOMS), [""; 0]);
    assert_eq!(circles(&house), [""; 0]);
    assert_eq!(rooms_without_a_head(&house, 8), [""; 0]);
    assert_eq!(long_files(&house, 2), [""; 0]);
    assert_eq!(rows_out_of_order(ROOMS), [""; 0]);
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    let part = "middle/part.rs";
    let well = "middle/deep/well.rs";
    for (file, text) in [
        (part, "use crate::top::Top;"),
        (part, "pub(crate) use crate::top;"),
        (part, "use crate::top as other;"),
        (part, "use crate::top::*;"),
        (part, "use crate::{ground::Ground, top::Top};"),
        (part, "use crate::{ground::{self}, top::{a::{B}}};"),
        (part, "use {crate::ground::Ground, crate::{top::Top}};"),
        (part, "fn f() { use crate::top::Top; }"),
        (part, "fn f() -> crate::top::Top { todo!() }"),
        (part, "fn f() { let a = Vec::<crate::top::Top>::new(); }"),
        (part, "fn f() { crate::top::make::<u8>() }"),
        (part, "use crate :: r#top :: Top;"),
        (part, "impl crate::top::Trait for Part {}"),
        (part, "pub(in crate::top) struct Part;"),
        (part, "pub(in super::super::top) struct Part;"),
        (part, "use super::super::top::Top;"),
        (part, "use super::super::{ground, top};"),
        (part, "use super::{super::top::Top};"),
        (part, "use self::super::super::top::Top;"),
        (part, "fn f() { super::super::top::f() }"),
        (part, "mod tests { use super::super::super::top::Top; }"),
        (part, "fn f() { mod inner { fn g() { crate::top::g() } } }"),
        (part, "#[derive(crate::top::Derive)] struct Part;"),
        (part, "fn f() { assert!(crate::top::is_there()); }"),
        (
            part,
            "fn f() { select! { _ = super::super::top::f() => {} } }",
        ),
        (part, "macro_rules! m { () => { $crate::top::f() } }"),
        (part, "macro_rules! m { () => { use $crate::top::f; } }"),
        (
            part,
            "macro_rules! m { () => { mod a { use super::super::super::top; } } }",
        ),
        (well, "use super::super::super::top::Top;"),
        ("middle/mod.rs", "use super::top::Top;"),
        ("ground.rs", "use super::top::Top;"),
        ("ground.rs", "mod tests { use super::super::top::Top; }"),
        ("ground.rs", "pub use crate::{top::Top};"),
    ] {
        let found = upward_in(file, text);
        let room = if file == "ground.rs" {
            "ground"
        } else {
            "middle"
        };
        let [one] = &found[..] else {
            panic!("{file}: {text}: {found:?}");
        };
        assert!(
            one.starts_with(&format!("{file}:1: crate::top")),
            "{text}: {one}"
        );
        assert!(one.ends_with(&format!("{room} uses top")), "{text}: {one}");
    }
    let two = upward_in(part, "use crate::{\n  top::{\n  A,\n  B,\n  },\n};");
    let a = "middle/part.rs:3: crate::top::A: middle uses top";
    let b = "middle/part.rs:4: crate::top::B: middle uses top";
    assert_eq!(two, [a, b]);
}

#[test]
fn nobody_goes_through_the_root() {
    for (file, text) in [
        ("middle/part.rs", "use crate::Ground;"),
        ("middle/part.rs", "use crate::{Ground};"),
        ("middle/part.rs", "fn f(_: &crate::Ground) {}"),
        ("middle/part.rs", "use crate::*;"),
        ("middle/part.rs", "use crate as root;"),
        ("middle/part.rs", "use crate::{self as root};"),
        ("middle/part.rs", "use super::super as root;"),
        ("middle/part.rs", "use super::super::*;"),
        ("middle/part.rs", "use super::super::Ground;"),
        ("middle/part.rs", "fn f() { crate::some_macro!() }"),
        ("ground.rs", "use super::*;"),
        ("top/mod.rs", "use super::Ground;"),
    ] {
        let found = upward_in(file, text);
        assert_eq!(found.len(), 1, "{file}: {text}: {found:?}");
        assert!(
            found[0].ends_with("goes through the crate's root"),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_no_import_does_not_count() {
    for (file, text) in [
        ("middle/part.rs", "// use crate::top::Top;"),
        (
            "middle/part.rs",
            "//! See [`Top`](crate::top::Top) and [`crate::Ground`].",
        ),
        (
            "middle/part.rs",
            "/// [`Top`](crate::top::Top)\nstruct Part;",
        ),
        (
            "middle/part.rs",
            "/* use crate::top::Top; */ /** crate::Ground */ struct Part;",
        ),
        (
            "middle/part.rs",
            r##"const A: &str = "crate::top"; const B: &str = r#"use crate::top;"#;"##,
        ),
        (
            "middle/part.rs",
            "pub(crate) struct Part { pub(super) a: u8, pub(in super::super) b: u8 }",
        ),
        (
            "middle/part.rs",
            "mod tests { use super::*; use super::super::deep; }",
        ),
        (
            "middle/part.rs",
            "fn f(self: &Self) { self.top.crate_(); *self as u8; }",
        ),
        (
            "middle/part.rs",
            "use other::top::Top; use ::top::Top; use top::Top; use std::fmt::{self as f};",
        ),
        (
            "middle/part.rs",
            "fn f<'a>(a: &'a u8) -> impl Trait + use<'a> { top::f() }",
        ),
        (
            "lib.rs",
            "mod top; use crate::top::Top; pub use ground::Ground;",
        ),
    ] {
        assert_eq!(upward_in(file, text), [""; 0], "{file}: {text}");
    }
}

#[test]
fn what_hides_where_names_come_from_is_not_let_in() {
    for text in [
        "#[path = \"../top/mod.rs\"] mod other;",
        "#[cfg_attr(unix, path = \"../top/mod.rs\")] mod other;",
        "#[macro_use] mod macros;",
        "include!(\"../top/mod.rs\");",
        "extern crate self as root;",
    ] {
        for file in ["lib.rs", "middle/part.rs"] {
            let found = upward_in(file, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].contains("hides where names come from"),
                "{found:?}"
            );
        }
    }
}

#[test]
fn a_room_needs_a_row() {
    for file in ["other.rs", "other/mod.rs"] {
        let found = upward_in(file, "//! Other.");
        assert_eq!(found, ["other has no row in the table of rooms"]);
    }
    let found = upward_in("other.rs", "use crate::ground::Ground;");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn the_table_itself_has_no_circle() {
    let rooms = [
        Room("a", &["a"]),
        Room("b", &["a"]),
        Room("c", &["d", "b"]),
        Room("d", &[]),
    ];
    assert_eq!(rows_out_of_order(&rooms), ["a uses a", "c uses d"]);
}

/// A room with the given files; `mod.rs` declares them.
fn room(common: &str, files: &[(&'static str, &'static str)]) -> Tree {
    let declared: Vec<_> = files
        .iter()
        .map(|(name, _)| format!("mod {name};"))
        .collect();
    let common = format!("{} {common}", declared.join(" "));
    let mut tree = Tree::of(&[("lib.rs", "mod room;"), ("room/mod.rs", &common)]);
    for (name, text) in files {
        tree.0.insert(format!("room/{name}.rs"), (*text).to_owned());
    }
    tree
}

#[test]
fn a_circle_of_files_is_found() {
    let pair = [
        ("a", "use super::b::B;"),
        ("b", "fn f() { crate::room::a::f() }"),
    ];
    let found = circles(&room("", &pair));
    assert_eq!(
        found,
        ["a → b (room/a.rs:1: crate::room::b::B) → a (room/b.rs:1: crate::room::a::f)"]
    );
    let three = [
        ("outside", "use super::a;"),
        ("a", "use super::b::B; use super::leaf::L;"),
        ("b", "use super::{c::C, leaf::L};"),
        ("c", "mod tests { use super::super::a::A; }"),
        ("leaf", ""),
    ];
    let found = circles(&room("", &three));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a → b ("), "{found:?}");
}

#[test]
fn a_circle_through_what_the_room_s_own_file_passes_on_is_found() {
    for (common, a, b) in [
        ("pub use self::b::B;", "use super::B;", "use super::a::A;"),
        ("pub use b::B;", "use super::B;", "use super::a::A;"),
        (
            "use self::b::B as Other;",
            "use super::Other;",
            "use super::a::A;",
        ),
        ("use self::b;", "use super::b::B;", "use super::a::A;"),
        (
            "pub use self::{a::A, b::B};",
            "use super::B;",
            "use crate::room::A;",
        ),
        (
            "pub use self::{a::A, b::B};",
            "fn f() { super::B::new() }",
            "use super::*;",
        ),
        ("pub use self::b::*;", "use super::B;", "use super::a::A;"),
    ] {
        let found = circles(&room(common, &[("a", a), ("b", b)]));
        assert_eq!(found.len(), 1, "{common} {a} {b}: {found:?}");
    }
}

#[test]
fn a_folder_and_its_files_are_one_step() {
    let mut tree = room("", &[("a", "use super::b::B;"), ("b", "mod inner;")]);
    assert_eq!(circles(&tree), [""; 0]);
    let inner = "use crate::room::a::A;";
    tree.0
        .insert("room/b/inner.rs".to_owned(), inner.to_owned());
    assert_eq!(circles(&tree).len(), 1);
    // And within a folder the same holds again.
    let mut tree = room("", &[("a", ""), ("b", "mod c; mod d;")]);
    for (name, other) in [("c", "d"), ("d", "c")] {
        let text = format!("use super::{other}::X;");
        tree.0.insert(format!("room/b/{name}.rs"), text);
    }
    assert_eq!(circles(&tree).len(), 1);
}

#[test]
fn a_room_s_own_file_makes_no_circle_with_its_children() {
    let files = [
        ("a", "use super::{Common, b::B};"),
        ("b", "use super::Common; use super::*;"),
    ];
    let common = "pub struct Common; pub use self::b::B; use crate::room::b::f;";
    assert_eq!(circles(&room(common, &files)), [""; 0]);
}

#[test]
fn a_room_says_what_belongs_there() {
    let nine = "//! A line.\n".repeat(9);
    for (file, text, wrong) in [
        ("middle/mod.rs", "mod part;", true),
        ("middle/mod.rs", "// Not a doc comment.\nmod part;", true),
        ("middle/mod.rs", "\n//! Not first.\nmod part;", true),
        ("middle/mod.rs", &nine, true),
        ("middle/mod.rs", &nine[12..], false),
        ("middle/deep/mod.rs", "", false),
        ("ground.rs", "", true),
        ("ground.rs", &nine, false),
    ] {
        let found = rooms_without_a_head(&house(file, text), 8);
        assert_eq!(found.len(), usize::from(wrong), "{file}: {text}: {found:?}");
    }
}

#[test]
fn a_long_file_gives_a_reason() {
    for (text, wrong) in [
        ("1\n2\n", false),
        ("1\n2\n3", true),
        ("//! Long because it must.\n2\n3", false),
        ("//! One.\n//!\n//! Long because it must.\n4", false),
        ("// Long because it must.\n2\n3", false),
        ("//! This is Long because.\n2\n3", true),
        ("//! One.\n2\n// Long because it must.", true),
    ] {
        let found = long_files(&Tree::of(&[("a.rs", text)]), 2);
        assert_eq!(found.len(), usize::from(wrong), "{text:?}: {found:?}");
    }
}

#[test]
fn a_lock_from_elsewhere_is_found() {
    let found = |file, text| locks_from_elsewhere(&house(file, text)).len();
    for text in [
        "use parking_lot::Mutex;",
        "fn f() -> parking_lot::MutexGuard<'static, ()> { g() }",
        "use std::sync::atomic::AtomicBool;",
        "use crate::a;\nuse std::{fmt, sync::{Arc, atomic::AtomicBool}};",
    ] {
        assert_eq!(found("middle/part.rs", text), 1, "{text}");
        assert_eq!(found("middle/tests/part.rs", text), 0, "{text}");
        assert_eq!(found("sync.rs", text), 0, "{text}");
    }
    let sound = "use std::sync::Arc;\nuse crate::sync::{Mutex, atomic::AtomicBool};";
    assert_eq!(found("middle/part.rs", sound), 0);
    let tests = format!("{sound}\n#[cfg(test)]\nmod tests {{ use parking_lot::Mutex; }}");
    assert_eq!(found("middle/part.rs", &tests), 0);
}
