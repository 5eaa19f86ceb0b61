//! A test of the source text: what a reviewer would have to look for by hand, and would one day miss.
//!
//! Floors (imports go down, siblings stay strangers), file size, where `unsafe` may stand, words and calls that
//! do not belong into a finished source, and documents that must not fall behind. Looks at text only: comments,
//! code and string literals are told apart, nothing is compiled.

use std::fmt::Write as _;
use std::fs;

use chainlightning::base::DropReason;

#[path = "tidy/source.rs"]
mod source;

use source::{SourceFile, has_word, root, sources};

/// Each module of the library with its floor (docs/architecture.md).
const FLOORS: [(&str, u8); 24] = [
    ("base", 0),
    ("wire", 1),
    ("crypto", 2),
    ("fec", 2),
    ("flow", 2),
    ("link", 2),
    ("reorder", 2),
    ("stream", 2),
    ("stripe", 2),
    ("session", 3),
    ("endpoint", 4),
    ("config", 5),
    ("logging", 5),
    ("sim", 5),
    ("status", 5),
    ("sys", 5),
    ("driver", 6),
    ("bench", ROOF),
    ("bin", ROOF),
    ("cli", ROOF),
    ("demo", ROOF),
    ("lab", ROOF),
    ("tools", ROOF),
    ("lib", ROOF),
];

/// Programs and what they are put together from; these may use each other.
const ROOF: u8 = 7;

/// Lines beyond which a file is named in the output, and beyond which it fails.
const LINES_NOTED: usize = 500;
const LINES_MAX: usize = 700;

/// Calls and attributes that have no place in a finished source, with what to do instead.
const BANNED_CODE: [(&str, &str); 7] = [
    ("todo!(", "write it"),
    ("unimplemented!(", "write it"),
    ("dbg!(", "remove it"),
    ("#[ignore", "a test that does not run is no test"),
    ("#![ignore", "a test that does not run is no test"),
    ("thread::sleep", "wait for a condition"),
    ("process::abort", "return an error"),
];

/// Words that have no place in a comment.
const BANNED_WORDS: [&str; 3] = ["FIXME", "XXX", "HACK"];

#[test]
fn imports_go_down_the_floors_only() {
    check(|file, faults| {
        let Some(module) = file.module() else { return };
        let Some(floor) = floor_of(module) else {
            faults.add(
                file,
                1,
                format!("module `{module}` has no floor: give it one in FLOORS"),
            );
            return;
        };
        for (line, target) in file.imports(is_module) {
            if let Some(target_floor) = floor_of(&target)
                && !may_use((module, floor), (&target, target_floor))
            {
                let what = format!("{module} (floor {floor}) uses {target} (floor {target_floor})");
                faults.add(file, line, what);
            }
        }
    });
}

#[test]
fn no_file_is_too_long() {
    check(|file, faults| {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            faults.add(
                file,
                lines,
                format!("{lines} lines, at most {LINES_MAX}: split it"),
            );
        } else if lines > LINES_NOTED {
            eprintln!("note: {} has {lines} lines", file.name);
        }
    });
}

#[test]
fn unsafe_stands_in_sys_only_and_every_other_floor_forbids_it() {
    const EXEMPT: [&str; 1] = ["tests/allocations.rs"]; // a counting allocator cannot be written without
    check(|file, faults| {
        if file.module() == Some("sys") || EXEMPT.contains(&file.name.as_str()) {
            return;
        }
        for (line, text) in file.code_lines() {
            if has_word(text, "unsafe") {
                faults.add(file, line, "`unsafe` outside of src/sys".into());
            }
        }
        let is_floor_root = matches!(file.parts().as_slice(), ["src", _, "mod.rs"])
            || matches!(file.parts().as_slice(), ["src", name] if *name != "lib.rs");
        if is_floor_root && !file.code.contains("#![forbid(unsafe_code)]") {
            faults.add(file, 1, "must start with #![forbid(unsafe_code)]".into());
        }
    });
}

#[test]
fn nothing_unfinished_is_left_behind() {
    check(|file, faults| {
        for (line, text) in file.code_lines() {
            for (call, advice) in BANNED_CODE {
                if text.contains(call) {
                    faults.add(file, line, format!("`{call}`: {advice}"));
                }
            }
        }
        for (line, text) in file.comment_lines() {
            for word in BANNED_WORDS {
                if has_word(text, word) {
                    faults.add(file, line, format!("{word} in a comment"));
                }
            }
            if has_unowned_todo(text) {
                faults.add(
                    file,
                    line,
                    "TODO without an owner: write TODO(name): what".into(),
                );
            }
        }
    });
}

#[test]
fn every_drop_reason_is_documented() {
    let path = root().join("docs/operations.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("docs/operations.md must explain each drop reason: {error}")
    });
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .map(|r| r.name())
        .filter(|name| !has_word(&text, name))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/operations.md does not explain the drop reasons {missing:?}"
    );
}

#[test]
fn the_rules_find_what_they_are_for() {
    let source = SourceFile::new("src/fec/x.rs", FAULTY.into());
    let targets: Vec<_> = source
        .imports(is_module)
        .map(|(line, target)| format!("{line} {target}"))
        .collect();
    assert_eq!(
        targets,
        [
            "2 base",
            "3 wire",
            "3 link",
            "3 sys",
            "7 session",
            "8 stream"
        ]
    );
    let comments: Vec<_> = source
        .comment_lines()
        .filter(|(_, t)| has_unowned_todo(t))
        .collect();
    assert_eq!(comments.iter().map(|c| c.0).collect::<Vec<_>>(), [1]);
    assert!(!source.code.contains("todo!(") && source.comments.contains("todo!("));
    assert!(source.code.contains("'a>") && !source.code.contains("quoted"));

    let allowed = |module: &str, target: &str| {
        let of = |name| floor_of(name).unwrap();
        may_use((module, of(module)), (target, of(target)))
    };
    for (module, target) in [
        ("fec", "base"),
        ("fec", "fec"),
        ("session", "link"),
        ("driver", "sys"),
        ("sys", "base"),
        ("sim", "endpoint"),
        ("cli", "lab"),
        ("bin", "sim"),
    ] {
        assert!(allowed(module, target), "{module} may use {target}");
    }
    for (module, target) in [
        ("fec", "link"),
        ("base", "wire"),
        ("sys", "wire"),
        ("config", "sys"),
        ("driver", "sim"),
        ("endpoint", "driver"),
        ("driver", "cli"),
    ] {
        assert!(!allowed(module, target), "{module} must not use {target}");
    }
    assert!(has_word("an unsafe {", "unsafe") && !has_word("(unsafe_code)", "unsafe"));
}

/// Input for [`the_rules_find_what_they_are_for`].
const FAULTY: &str = r##"//! TODO: write [`crate::driver`]; TODO(ann): fine. todo!( is only talk here
use crate::base::Rng;
use crate::{wire::header, link::{Sender, Pacer}, sys};
/* crate::endpoint is /* nested */ commented out */
fn f<'a>(quote: char) -> &'a str { if quote == '"' { "quoted crate::sim \" // no comment" } else { r#"raw "crate::sim" "# } }
fn g() {
    let _ = crate::session::new();
    super::super::stream::cut();
}
"##;

/// Whether one module may name the other.
fn may_use((module, floor): (&str, u8), (target, target_floor): (&str, u8)) -> bool {
    if module == target {
        return true;
    }
    match module {
        "sys" => target == "base",
        "driver" => target_floor < floor && target != "sim",
        _ if floor == ROOF => true,
        _ => target_floor < floor,
    }
}

fn is_module(name: &str) -> bool {
    floor_of(name).is_some()
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

/// Runs one rule over all sources and fails with everything it found.
fn check(rule: impl Fn(&SourceFile, &mut Faults)) {
    let files = sources();
    assert!(files.len() > 20, "the sources were not found");
    let mut faults = Faults::default();
    for file in &files {
        rule(file, &mut faults);
    }
    assert!(faults.0.is_empty(), "\n{}", faults.0);
}

#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &SourceFile, line: usize, what: String) {
        writeln!(self.0, "{}:{line}: {what}", file.name).expect("a String takes everything");
    }
}

fn has_unowned_todo(text: &str) -> bool {
    text.match_indices("TODO").any(|(at, found)| {
        let owner = text[at + found.len()..]
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'));
        owner.is_none_or(|(name, _)| name.trim().is_empty())
    })
}
