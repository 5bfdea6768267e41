//! Every path in a file that starts at the crate's root or at a module: in `use`, in code, in attributes, in macros.
//!
//! It reads tokens, not syntax: so it sees the insides of macros, and comments and strings are out of the way.

use std::{collections::BTreeSet, iter::once};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::tree::{Tree, module_of};

pub(crate) type Path = Vec<String>;

/// Code in one module that names something of this crate.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The module that the code stands in.
    pub(crate) from: Path,
    /// What it names, from the crate's root; `*` at the end is all of a module.
    pub(crate) to: Path,
    /// The name that a `use` gives it in its module.
    pub(crate) brought_in_as: Option<String>,
}

/// What a tree's files import, and what in them could lead somewhere unseen.
#[derive(Default)]
pub(crate) struct Imports {
    pub(crate) modules: BTreeSet<Path>,
    pub(crate) all: Vec<Import>,
    pub(crate) unreadable: Vec<String>,
}

impl Imports {
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut imports = Self::default();
        let files = tree.0.keys().map(|file| module_of(file));
        imports.modules.extend(files);
        for (file, text) in &tree.0 {
            let tokens = text.parse().unwrap_or_else(|why| panic!("{file}: {why}"));
            let mut scan = Scan {
                file,
                imports: &mut imports,
            };
            scan.code(tokens, &module_of(file));
        }
        imports
    }

    /// The module that a path leads into: its longest start that is one.
    pub(crate) fn module_in(&self, path: &[String]) -> Path {
        let mut module = path;
        while !self.modules.contains(module) && !module.is_empty() {
            module = &module[..module.len() - 1];
        }
        module.to_vec()
    }
}

/// A walk through one file.
struct Scan<'a> {
    file: &'a str,
    imports: &'a mut Imports,
}

impl Scan<'_> {
    fn code(&mut self, tokens: TokenStream, module: &Path) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            self.look_for_the_unreadable(rest);
            at += match word(rest.first()).as_deref() {
                Some("use") => self.use_item(rest, module),
                Some("mod") => self.mod_item(rest, module),
                Some("crate" | "self" | "super") => self.path(rest, module, false),
                _ => {
                    if let TokenTree::Group(group) = &rest[0] {
                        self.code(group.stream(), module);
                    }
                    1
                }
            };
        }
    }

    /// What would make a module's path another than its file's, or bring names in without a path.
    fn look_for_the_unreadable(&mut self, rest: &[TokenTree]) {
        let words: Vec<_> = rest.iter().take(3).map(|token| word(Some(token))).collect();
        let words: Vec<_> = words.iter().map(Option::as_deref).collect();
        let found = match words[..] {
            [Some("extern"), Some("crate"), Some("self")] => "extern crate self",
            [Some("include"), None, None] if is(rest.get(1), '!') => "include!",
            [None, None, ..] if is(rest.first(), '#') => match attribute(rest) {
                Some(found) => found,
                None => return,
            },
            _ => return,
        };
        let line = line(&rest[0]);
        let said = format!("{}:{line}: {found} hides where names come from", self.file);
        self.imports.unreadable.push(said);
    }

    /// `mod name { .. }` is a module of its own, `mod name;` another file.
    fn mod_item(&mut self, rest: &[TokenTree], module: &Path) -> usize {
        let (Some(name), Some(TokenTree::Group(body))) = (word(rest.get(1)), rest.get(2)) else {
            return 1;
        };
        if body.delimiter() != Delimiter::Brace {
            return 1;
        }
        let inside = joined(module, name);
        self.imports.modules.insert(inside.clone());
        self.code(body.stream(), &inside);
        3
    }

    fn use_item(&mut self, rest: &[TokenTree], module: &Path) -> usize {
        let end = rest.iter().position(|token| is(Some(token), ';'));
        // Not `impl Trait + use<'a>`.
        let (Some(end), false) = (end, is(rest.get(1), '<')) else {
            return 1;
        };
        self.use_tree(&rest[1..end], module);
        end
    }

    /// What stands in a `use`, or in a brace at its start: it may start with a name of this module's own.
    fn use_tree(&mut self, tree: &[TokenTree], module: &Path) {
        match (word(tree.first()).as_deref(), tree.first()) {
            (Some("crate" | "self" | "super"), _) => {
                self.path(tree, module, true);
            }
            (Some(name), _) => {
                let child = joined(module, name.to_owned());
                if self.imports.modules.contains(&child) {
                    self.rest_of_path(&tree[1..], child, module, true, line(&tree[0]));
                }
            }
            (None, Some(TokenTree::Group(group))) => {
                for tree in split(group.stream()) {
                    self.use_tree(&tree, module);
                }
            }
            (None, first) if is(first, '$') => self.use_tree(&tree[1..], module),
            // Another crate's.
            (None, _) => {}
        }
    }

    /// A path that starts with `crate`, `self` or `super`; how many tokens it takes.
    fn path(&mut self, rest: &[TokenTree], module: &Path, is_use: bool) -> usize {
        let goes_on = is_path_separator(&rest[1..]);
        let is_renamed = word(rest.get(1)).as_deref() == Some("as");
        if !goes_on && !is_renamed {
            // `self` as a value, `pub(crate)`.
            return 1;
        }
        let start = match word(rest.first()).as_deref() {
            Some("crate") => Path::new(),
            Some("super") => parent(module),
            _ => module.clone(),
        };
        1 + self.rest_of_path(&rest[1..], start, module, is_use, line(&rest[0]))
    }

    /// What follows in a path after `so_far`; how many tokens it takes.
    fn rest_of_path(
        &mut self,
        rest: &[TokenTree],
        mut so_far: Path,
        module: &Path,
        is_use: bool,
        line: usize,
    ) -> usize {
        let mut at = 0;
        while is_path_separator(&rest[at..]) {
            match (word(rest.get(at + 2)).as_deref(), rest.get(at + 2)) {
                (Some("super"), _) => so_far = parent(&so_far),
                (Some(name), _) => so_far.push(name.to_owned()),
                (None, Some(TokenTree::Group(group))) => {
                    for tree in split(group.stream()) {
                        self.nested(&tree, &so_far, module, is_use);
                    }
                    return at + 3;
                }
                (None, Some(star)) if is(Some(star), '*') => {
                    let all = joined(&so_far, "*".to_owned());
                    self.found(all, is_use.then(|| "*".to_owned()), module, line);
                    return at + 3;
                }
                // `::<`
                _ => break,
            }
            at += 3;
        }
        let mut name = so_far.last().cloned();
        if word(rest.get(at)).as_deref() == Some("as") {
            name = word(rest.get(at + 1));
        } else if so_far.is_empty() {
            // The root itself, as in `pub(in super::super)`: names nothing.
            return at;
        }
        self.found(so_far, name.filter(|_| is_use), module, line);
        at
    }

    /// One of the paths in the braces after `prefix`.
    fn nested(&mut self, tree: &[TokenTree], prefix: &Path, module: &Path, is_use: bool) {
        let Some(first) = tree.first() else { return };
        let line = line(first);
        match word(Some(first)).as_deref() {
            Some("self") => {
                let renamed = word(tree.get(2)).or(prefix.last().cloned());
                self.found(prefix.clone(), renamed.filter(|_| is_use), module, line);
            }
            Some(name) => {
                let path = match name {
                    "super" => parent(prefix),
                    name => joined(prefix, name.to_owned()),
                };
                self.rest_of_path(&tree[1..], path, module, is_use, line);
            }
            None if is(Some(first), '*') => {
                let all = joined(prefix, "*".to_owned());
                self.found(all, is_use.then(|| "*".to_owned()), module, line);
            }
            None => {}
        }
    }

    fn found(&mut self, to: Path, brought_in_as: Option<String>, module: &Path, line: usize) {
        self.imports.all.push(Import {
            file: self.file.to_owned(),
            line,
            from: module.clone(),
            to,
            brought_in_as,
        });
    }
}

/// The attribute after `#` or `#!`, if it moves modules or macros.
fn attribute(rest: &[TokenTree]) -> Option<&'static str> {
    let group = rest[1..].iter().take(2).find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => Some(group),
        _ => None,
    })?;
    let tokens: Vec<_> = group.stream().into_iter().collect();
    let inner: Vec<_> = match (word(tokens.first()).as_deref(), tokens.get(1)) {
        (Some("cfg_attr"), Some(TokenTree::Group(inner))) => inner.stream().into_iter().collect(),
        _ => tokens,
    };
    inner
        .iter()
        .enumerate()
        .find_map(|(at, token)| match word(Some(token)).as_deref() {
            Some("path") if is(inner.get(at + 1), '=') => Some("#[path]"),
            Some("macro_use") => Some("#[macro_use]"),
            _ => None,
        })
}

/// At the commas.
fn split(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let parts = tokens.split(|token| is(Some(token), ','));
    parts.map(<[_]>::to_vec).collect()
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token? {
        TokenTree::Ident(ident) => {
            let text = ident.to_string();
            Some(text.strip_prefix("r#").unwrap_or(&text).to_owned())
        }
        _ => None,
    }
}

fn is(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

fn is_path_separator(rest: &[TokenTree]) -> bool {
    is(rest.first(), ':') && is(rest.get(1), ':')
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn joined(path: &Path, name: String) -> Path {
    path.iter().cloned().chain(once(name)).collect()
}

fn parent(path: &Path) -> Path {
    path[..path.len().saturating_sub(1)].to_vec()
}
