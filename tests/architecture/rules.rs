//! What must hold of the rooms. Each rule lists what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    imports::{Import, Imports, Path},
    tree::{Tree, head, module_of},
};

/// A file or folder directly below `src/`, and the rooms that it may use.
pub(crate) struct Room(pub(crate) &'static str, pub(crate) &'static [&'static str]);

/// Rooms that may use themselves or one that stands below them in the table.
pub(crate) fn rows_out_of_order(rooms: &[Room]) -> Vec<String> {
    let mut above = BTreeSet::new();
    let mut found = Vec::new();
    for Room(name, uses) in rooms {
        let wrong = uses.iter().filter(|used| !above.contains(*used));
        found.extend(wrong.map(|used| format!("{name} uses {used}")));
        above.insert(name);
    }
    found
}

/// Imports that the table does not allow. `lib.rs` may import everything.
pub(crate) fn upward_imports(src: &Tree, rooms: &[Room]) -> Vec<String> {
    let imports = Imports::of(src);
    let table: BTreeMap<_, _> = rooms
        .iter()
        .map(|Room(name, uses)| (*name, *uses))
        .collect();
    let top = imports.modules.iter().filter_map(|module| module.first());
    let there: BTreeSet<_> = top.map(String::as_str).collect();

    let mut found = imports.unreadable.clone();
    let without_a_row = there.iter().filter(|room| !table.contains_key(*room));
    found.extend(without_a_row.map(|room| format!("{room} has no row in the table of rooms")));
    for import in &imports.all {
        let Some(room) = import.from.first() else {
            continue;
        };
        let place = place(import);
        match import.to.first() {
            Some(used) if used == room => {}
            Some(used) if there.contains(used.as_str()) => {
                let allowed = table.get(room.as_str()).copied().unwrap_or_default();
                if !allowed.contains(&used.as_str()) {
                    found.push(format!("{place}: {room} uses {used}"));
                }
            }
            _ => found.push(format!("{place}: goes through the crate's root")),
        }
    }
    found
}

/// Files (or folders with their files) that stand beside each other and import each other in a circle.
///
/// A folder's own file (`mod.rs`) is no part of circles: it declares its children, and they use what it has in common. What it
/// only passes on from a child is looked through.
pub(crate) fn circles(src: &Tree) -> Vec<String> {
    let imports = Imports::of(src);
    let mut folders: BTreeMap<Path, Graph<'_>> = BTreeMap::new();
    for import in &imports.all {
        for to in reached(&imports, &import.to) {
            let from = module_of(&import.file);
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // The crate's root is not a room: the table says what holds there.
            if common == 0 || common == from.len() || common == to.len() {
                continue;
            }
            let graph = folders.entry(from[..common].to_vec()).or_default();
            let edges = graph.entry(from[common].clone()).or_default();
            edges.entry(to[common].clone()).or_insert(import);
        }
    }
    let circles = folders.values().filter_map(circle);
    circles.collect()
}

/// Who imports whom, and where.
type Graph<'a> = BTreeMap<String, BTreeMap<String, &'a Import>>;

/// The modules that a path leads into, also through what others pass on in the same room.
fn reached(imports: &Imports, to: &[String]) -> BTreeSet<Path> {
    let mut reached = BTreeSet::new();
    let mut open = vec![to.to_vec()];
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let module = imports.module_in(&path);
        let Some(name) = path.get(module.len()) else {
            reached.insert(module);
            continue;
        };
        let passed_on = imports.all.iter().filter(|import| {
            let known_as = import.brought_in_as.as_deref();
            import.from == module
                && import.to.first() == module.first()
                && known_as.is_some_and(|known| name == "*" || known == "*" || known == name)
        });
        for import in passed_on {
            let mut to = import.to.clone();
            if to.last().is_some_and(|last| last == "*") {
                to.pop();
                to.push(name.clone());
            } else {
                to.extend_from_slice(&path[module.len() + 1..]);
            }
            open.push(to);
        }
        reached.insert(module);
    }
    reached
}

fn circle(graph: &Graph<'_>) -> Option<String> {
    let mut left: BTreeSet<_> = graph.keys().collect();
    // Whoever imports nobody that is left is in no circle.
    loop {
        let before = left.len();
        let is_open = |name: &&String| graph[*name].keys().any(|to| left.contains(to));
        left = left.iter().copied().filter(is_open).collect();
        if left.len() == before {
            break;
        }
    }
    let mut way: Vec<&String> = left.iter().copied().take(1).collect();
    loop {
        let next = graph[*way.last()?].keys().find(|to| left.contains(to))?;
        if let Some(start) = way.iter().position(|seen| *seen == next) {
            way.drain(..start);
            way.push(next);
            break;
        }
        way.push(next);
    }
    let steps = way.windows(2).map(|step| {
        let import = graph[step[0]][step[1]];
        format!("{} ({})", step[1], place(import))
    });
    let steps: Vec<_> = steps.collect();
    Some(format!("{} → {}", way[0], steps.join(" → ")))
}

fn place(import: &Import) -> String {
    let Import { file, line, to, .. } = import;
    format!("{file}:{line}: crate::{}", to.join("::"))
}

/// Files that have a lock or an atomic from elsewhere than `sync`: the checker that stands in for it would not see them.
/// Tests and what is for users' tests may.
pub(crate) fn locks_from_elsewhere(src: &Tree) -> Vec<String> {
    let is_meant = |file: &str| {
        let apart = ["sync.rs", "testing/", "store/conformance"];
        !apart.iter().any(|start| file.starts_with(start)) && !file.contains("/tests")
    };
    let mut found = Vec::new();
    for (file, text) in src.0.iter().filter(|(file, _)| is_meant(file)) {
        let (code, _) = text
            .split_once("#[cfg(test)]\nmod tests {")
            .unwrap_or((text, ""));
        let lines = code.lines();
        let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        let foreign = code.split(';').filter(|statement| {
            let std = statement.split_once("use std::").map_or("", |(_, std)| std);
            statement.contains("parking_lot::") || std.contains("atomic")
        });
        found.extend(
            foreign.map(|_| format!("{file}: a lock or an atomic that is not from `sync`")),
        );
    }
    found
}

/// Rooms whose file does not open with a short comment of its own.
pub(crate) fn rooms_without_a_head(src: &Tree, most: usize) -> Vec<String> {
    let rooms = src.0.iter().filter(|(file, _)| {
        let is_folder = file.ends_with("/mod.rs") && module_of(file).len() == 1;
        is_folder || (!file.contains('/') && *file != "lib.rs")
    });
    let rooms = rooms.filter_map(|(file, text)| {
        let lines = head(text);
        let lines = lines
            .iter()
            .take_while(|line| line.starts_with("//!"))
            .count();
        match lines {
            0 => Some(format!("{file} does not say what belongs there")),
            _ if lines > most && file.contains('/') => {
                Some(format!("{file} says it in {lines} lines, not {most}"))
            }
            _ => None,
        }
    });
    rooms.collect()
}

/// Files with more lines than that, and no reason.
pub(crate) fn long_files(tree: &Tree, most: usize) -> Vec<String> {
    let long = tree.0.iter().filter_map(|(file, text)| {
        let lines = text.lines().count();
        let gives_a_reason = head(text).iter().any(|line| {
            let said = line.trim_start_matches(['/', '!']).trim_start();
            said.starts_with("Long because")
        });
        (lines > most && !gives_a_reason).then(|| format!("{file}: {lines} lines"))
    });
    long.collect()
}
