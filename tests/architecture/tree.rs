//! The files of a crate, from its folder or made up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Rust files by their path below the root, with `/` between its parts.
pub(crate) struct Tree(pub(crate) BTreeMap<String, String>);

impl Tree {
    /// The Rust files in a folder of this package.
    pub(crate) fn read(folder: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    let skip = path.file_name().unwrap() == "node_modules";
                    folders.extend((!skip).then_some(path));
                } else if path.extension().is_some_and(|end| end == "rs") {
                    files.insert(below(&root, &path), fs::read_to_string(&path).unwrap());
                }
            }
        }
        assert!(!files.is_empty(), "no files in {folder}/");
        Self(files)
    }

    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self(files.iter().map(owned).collect())
    }
}

fn below(root: &Path, path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root).unwrap().to_owned();
    let parts = path.iter().map(|part| part.to_str().unwrap());
    parts.collect::<Vec<_>>().join("/")
}

/// The module that a file is: `store/memory/shard.rs` is `store::memory::shard`, `store/mod.rs` is `store`.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let mut path: Vec<_> = file
        .strip_suffix(".rs")
        .unwrap()
        .split('/')
        .map(str::to_owned)
        .collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
        path.pop();
    }
    path
}

/// The comment that a file opens with, line by line.
pub(crate) fn head(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.take_while(|line| line.starts_with("//")).collect()
}
