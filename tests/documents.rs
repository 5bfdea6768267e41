//! What the documents say of the code is there: every test that they name, and every constant.

use std::{fs, path::Path};

const DOCUMENTS: [&str; 2] = ["SECURITY.md", "docs/limits.md"];

/// What stands between backticks and begins with a file of ours, as the file and what is said to be in it.
fn named(document: &str) -> Vec<(String, String)> {
    let text = read(document);
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once(": "))
        .filter(|(file, _)| file.ends_with(".rs"))
        .map(|(file, what)| (file.to_owned(), what.to_owned()))
        .collect()
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn what_they_name_is_there() {
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let named = named(document);
        assert!(named.len() > 20, "{document} names {} things", named.len());
        for (file, what) in named {
            let code = read(&file);
            let is_there = match file.starts_with("tests/") {
                true => code.contains(&format!("fn {what}(")),
                false => code.contains(&what),
            };
            if !is_there {
                missing.push(format!("{document}: {file}: {what}"));
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}
