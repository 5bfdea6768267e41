//! All readings of a path, the slow and clear way: sets of strings, each step taken wherever it can be. It shares nothing
//! with the crate. A character is a byte.

use std::collections::BTreeSet;

use url::Url;

/// More decodings than this are in nobody's use.
const DECODINGS: usize = 2;
/// A path with more readings is not looked at; none of those here has them.
const MANY: usize = 20_000;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Verdict {
    Elsewhere,
    Arrives,
    LetOut,
}

/// What becomes of a path with these readings.
pub(crate) fn verdict(readings: &BTreeSet<String>, guarded: &[&str], let_out: &[&str]) -> Verdict {
    let is_below =
        |at: &str, reading: &str| reading == at || reading.starts_with(&format!("{at}/"));
    let reaches = |paths: &[&str], reading: &String| paths.iter().any(|at| is_below(at, reading));
    if !readings.iter().any(|reading| reaches(guarded, reading)) {
        Verdict::Elsewhere
    } else if readings.iter().all(|reading| reaches(let_out, reading)) {
        Verdict::LetOut
    } else {
        Verdict::Arrives
    }
}

pub(crate) fn readings(path: &str) -> BTreeSet<String> {
    let path: String = path.bytes().map(char::from).collect();
    let mut known = BTreeSet::from([(path.clone(), 0)]);
    let mut left = vec![(path, 0)];
    while let Some((path, decodings)) = left.pop() {
        let is_blank = |c: char| ('\u{1}'..=' ').contains(&c);
        let tidied = [
            merge(&path),
            resolve(&path, &["."], &[".."]),
            resolve(&path, &[".", "%2e"], &["..", ".%2e", "%2e.", "%2e%2e"]),
            cut_parameters(&path),
            path.replace('\\', "/"),
            cut_at(&path, &['?', '#', '\0']),
            path.replace(['\t', '\r', '\n'], ""),
            path.trim_end_matches(is_blank).to_owned(),
            url(&path),
        ];
        let mut next: Vec<_> = tidied.map(|path| (path, decodings)).into();
        if decodings < DECODINGS {
            let slashes_stay = path.replace("%2F", "%252F").replace("%2f", "%252f");
            next.extend([path, slashes_stay].map(|path| (decode(&path), decodings + 1)));
        }
        for reading in next {
            if known.insert(reading.clone()) {
                left.push(reading);
            }
        }
        assert!(known.len() < MANY, "{known:?}");
    }
    known.into_iter().map(|(path, _)| path).collect()
}

fn merge(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

/// With this for dots, in lower case.
fn resolve(path: &str, here: &[&str], above: &[&str]) -> String {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut resolved: Vec<&str> = Vec::new();
    let mut is_open = false;
    for segment in path.split('/') {
        let name = segment.to_lowercase();
        let is_above = above.contains(&&*name);
        is_open = is_above || here.contains(&&*name);
        if is_above {
            resolved.pop();
        } else if !is_open {
            resolved.push(segment);
        }
    }
    if is_open {
        resolved.push("");
    }
    format!("/{}", resolved.join("/"))
}

fn cut_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| cut_at(segment, &[';']));
    segments.collect::<Vec<_>>().join("/")
}

fn cut_at(path: &str, ends: &[char]) -> String {
    path.split(ends).next().unwrap().to_owned()
}

fn decode(path: &str) -> String {
    let bytes: Vec<u8> = path.chars().map(|c| u8::try_from(c).unwrap()).collect();
    percent_encoding::percent_decode(&bytes)
        .map(char::from)
        .collect()
}

/// As a proxy does that puts what it has into an URL.
fn url(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let url = Url::parse(&format!("http://localhost{path}")).unwrap();
    url.path().to_owned()
}
