//! A table that people like to read: aligned columns, a header, no lines.

use std::fmt::Write as _;

use reeved::logging::printable;

/// Rows of text beneath a header.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|title| (*title).to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows
            .push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// Whether it has only its header.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The table, columns two blanks apart; the last is as wide as it likes.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names beside values, aligned.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        let _ = writeln!(
            text,
            "{:<pad$}  {}",
            format!("{name}:"),
            printable(value),
            pad = width + 1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&["ID", "NAME", "STATE"]);
        table.row(vec!["1".into(), "web".into(), "running".into()]);
        table.row(vec!["-".into(), "Büro 2".into(), "shut off".into()]);
        table.row(vec!["10".into(), "x\u{202e}\n".into(), String::new()]);
        assert_eq!(
            table.render(),
            "ID  NAME         STATE\n\
             1   web          running\n\
             -   Büro 2       shut off\n\
             10  x\\u{202e}\\n\n"
        );
    }
}
