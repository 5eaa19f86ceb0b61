//! Text tables for people: columns as wide as their widest cell, within one line of a terminal.

/// Width of the narrowest terminal that counts.
pub(super) const COLUMNS: usize = 80;

/// Which side of a column its cells stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Renders rows below their titles, two spaces between columns. Cells of the last column are cut at
/// [`COLUMNS`]; no other column may be.
pub(super) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().map(|row| row[index].chars().count());
        cells
            .chain([columns[index].0.chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let titles = columns
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let mut out = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        out.push_str(&cut(line.trim_end()));
        out.push('\n');
    }
    out
}

/// The text, or as much of it as fits one line.
pub(super) fn cut(text: &str) -> String {
    if text.chars().count() <= COLUMNS {
        return text.to_owned();
    }
    text.chars()
        .take(COLUMNS - 3)
        .chain("...".chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_fit() {
        let columns = [
            ("name", Align::Left),
            ("n", Align::Right),
            ("note", Align::Left),
        ];
        let rows = vec![
            vec!["a".into(), "100".into(), "x".repeat(90)],
            vec!["longer".into(), "7".into(), String::new()],
        ];
        let text = render(&columns, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "name      n  note");
        assert!(lines[1].starts_with("a       100  xxx") && lines[1].len() == COLUMNS);
        assert_eq!(lines[2], "longer    7");
    }
}
