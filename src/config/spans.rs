//! From byte offsets to `line:column`, so that every message points at its place.

use std::fmt;
use std::ops::Range;

/// A place in a text: line and column counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The place of the byte at `offset`; an offset beyond the end is the end.
pub fn place_of(text: &str, offset: usize) -> Place {
    let before = &text[..floor_char_boundary(text, offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: 1 + before.matches('\n').count(),
        column: 1 + before[line_start..].chars().count(),
    }
}

/// Longest piece of the file that a message repeats; more would hide what is wrong.
const EXCERPT_CHARS_MAX: usize = 60;

/// What stands at `span`, on one line and not longer than a message can bear.
pub fn excerpt(text: &str, span: Range<usize>) -> String {
    let start = floor_char_boundary(text, span.start);
    let end = floor_char_boundary(text, span.end).max(start);
    let mut out = String::new();
    for (count, c) in text[start..end].chars().enumerate() {
        if count == EXCERPT_CHARS_MAX {
            out.push_str("...");
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// The nearest character start at or before `offset`.
fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_columns_count_characters() {
        let text = "a = 1\nü = \"é\"\n";
        assert_eq!(place_of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(place_of(text, 6), Place { line: 2, column: 1 });
        let value = text.find('"').unwrap();
        assert_eq!(place_of(text, value), Place { line: 2, column: 5 });
        assert_eq!(place_of(text, 9999), Place { line: 3, column: 1 });
    }

    #[test]
    fn every_offset_of_a_text_has_a_place_and_an_excerpt() {
        let text = "ключ = \"значение\"\r\n\u{7f}x";
        for start in 0..text.len() + 2 {
            let place = place_of(text, start);
            assert!(place.line >= 1 && place.column >= 1);
            for end in 0..text.len() + 2 {
                assert!(!excerpt(text, start..end).contains('\n'));
            }
        }
    }

    #[test]
    fn long_excerpts_are_cut() {
        let text = "x".repeat(500);
        assert_eq!(excerpt(&text, 0..500).len(), EXCERPT_CHARS_MAX + 3);
    }
}
