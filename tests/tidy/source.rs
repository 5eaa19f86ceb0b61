//! Reads the package's sources and tells code, comments and literals apart.
//!
//! Knows as much of Rust's syntax as that takes: comments that nest, raw text, lifetimes beside character literals,
//! and `use` lists one level deep.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file, with code and comments told apart. Line numbers are the same in all three texts.
pub struct SourceFile {
    /// Path from the root of the package.
    pub name: String,
    pub text: String,
    /// Comments and the insides of literals are blank.
    pub code: String,
    /// All but the comments is blank.
    pub comments: String,
}

impl SourceFile {
    pub fn new(name: &str, text: String) -> Self {
        let (code, comments) = split_comments(&text);
        Self {
            name: name.into(),
            text,
            code,
            comments,
        }
    }

    pub fn parts(&self) -> Vec<&str> {
        self.name.split('/').collect()
    }

    /// The module of the library the file belongs to; `None` for tests and benches.
    pub fn module(&self) -> Option<&str> {
        match self.parts().as_slice() {
            ["src", file] => (*file).strip_suffix(".rs"),
            ["src", module, ..] => Some(*module),
            ["tools", ..] => Some("tools"),
            _ => None,
        }
    }

    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    pub fn comment_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.comments.lines())
    }

    /// The modules that are named through `crate::` or through `super::` out of the own one, with their lines.
    pub fn imports(
        &self,
        is_module: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (usize, String)> {
        let from_root = self
            .code
            .match_indices("crate::")
            .map(|(at, found)| at + found.len());
        let from_super = self
            .code
            .match_indices("super::")
            .map(|(at, found)| at + found.len());
        // `super::stream` reaches a floor only if it is none of the file's own neighbours.
        let folder = root()
            .join(&self.name)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let is_neighbour = move |name: &str| {
            folder.join(format!("{name}.rs")).exists() || folder.join(name).is_dir()
        };
        let outside = from_super
            .flat_map(|at| names_after(&self.code, at))
            .filter(move |(_, name)| is_module(name) && !is_neighbour(name));
        let mut all: Vec<_> = from_root
            .flat_map(|at| names_after(&self.code, at))
            .chain(outside)
            .collect();
        all.sort();
        all.into_iter()
            .map(|(at, name)| (1 + self.code[..at].matches('\n').count(), name))
    }
}

/// The first names of the paths at `at`: one, or those of a `{..}` list, with their places.
fn names_after(code: &str, at: usize) -> Vec<(usize, String)> {
    let rest = &code[at..];
    if !rest.starts_with('{') {
        return vec![(at, first_name(rest))];
    }
    let mut names = Vec::new();
    let (mut depth, mut expects_name) = (0, false);
    for (offset, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            expects_name = true;
        } else if expects_name && !c.is_whitespace() {
            names.push((at + offset, first_name(&rest[offset..])));
            expects_name = false;
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|&c| is_name_char(c)).collect()
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_name_char) && !text[at + word.len()..].starts_with(is_name_char)
    })
}

/// What the scanner of [`split_comments`] is in.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(u32),
    Text,
    /// Raw text ends with a quote and as many hashes as it began with.
    RawText(usize),
}

/// The same text twice: once with code only, once with comments only; the rest is blank, line ends stay.
fn split_comments(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut inside = Inside::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (taken, next) = step(rest, c, inside, code.ends_with(is_name_char));
        let in_comment = |i| matches!(i, Inside::LineComment | Inside::BlockComment(_));
        let is_comment = in_comment(inside) || in_comment(next);
        let is_code = inside == Inside::Code && next == Inside::Code && !is_char_literal(rest);
        for c in rest[..taken].chars() {
            let blank = if c == '\n' { '\n' } else { ' ' };
            code.push(if is_code { c } else { blank });
            comments.push(if is_comment { c } else { blank });
        }
        rest = &rest[taken..];
        inside = next;
    }
    (code, comments)
}

/// How many bytes belong together at the start of `rest`, and what follows them.
fn step(rest: &str, c: char, inside: Inside, after_name: bool) -> (usize, Inside) {
    match inside {
        Inside::Code => {
            if rest.starts_with("//") {
                (2, Inside::LineComment)
            } else if rest.starts_with("/*") {
                (2, Inside::BlockComment(1))
            } else if let Some(hashes) = raw_text_start(rest).filter(|_| !after_name) {
                (
                    rest.find('"').map_or(1, |at| at + 1),
                    Inside::RawText(hashes),
                )
            } else if c == '"' {
                (1, Inside::Text)
            } else if is_char_literal(rest) {
                (char_literal_bytes(rest), Inside::Code)
            } else {
                (c.len_utf8(), Inside::Code)
            }
        }
        Inside::LineComment if c == '\n' => (1, Inside::Code),
        Inside::BlockComment(depth) if rest.starts_with("/*") => {
            (2, Inside::BlockComment(depth + 1))
        }
        Inside::BlockComment(1) if rest.starts_with("*/") => (2, Inside::Code),
        Inside::BlockComment(depth) if rest.starts_with("*/") => {
            (2, Inside::BlockComment(depth - 1))
        }
        Inside::Text if c == '\\' => (
            1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            Inside::Text,
        ),
        Inside::Text if c == '"' => (1, Inside::Code),
        Inside::RawText(hashes) if c == '"' && rest[1..].starts_with(&"#".repeat(hashes)) => {
            (1 + hashes, Inside::Code)
        }
        _ => (c.len_utf8(), inside),
    }
}

/// The number of hashes when `rest` starts raw text: r"..", r#".."#, br"..".
fn raw_text_start(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Whether `rest` starts with 'x' or '\x', and not with a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('\'')
        && match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        }
}

fn char_literal_bytes(rest: &str) -> usize {
    let body = if rest[1..].starts_with('\\') { 3 } else { 2 };
    rest.get(body..)
        .and_then(|tail| tail.find('\''))
        .map_or(rest.len(), |at| body + at + 1)
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the package, in order of name.
pub fn sources() -> Vec<SourceFile> {
    let mut files = Vec::new();
    for folder in ["benches", "src", "tests", "tools"] {
        collect(&root().join(folder), &mut files);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn collect(folder: &Path, files: &mut Vec<SourceFile>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are readable UTF-8");
            let name = path
                .strip_prefix(root())
                .expect("it was found below the root");
            files.push(SourceFile::new(&name.to_string_lossy(), text));
        }
    }
}
