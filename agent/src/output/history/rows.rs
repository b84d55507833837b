//! Rows of text, as a table or as CSV.

use crate::output::{Colour, Style, Table, escape};
use std::fmt::Write as _;

#[derive(Clone, Debug)]
pub struct Rows {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    pub fn new(headings: &[&'static str]) -> Rows {
        Rows {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    pub fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.headings.len());
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A table with columns that fit.
    pub fn text(&self, style: &Style) -> String {
        let mut table = Table::new(&self.headings);
        for row in &self.rows {
            table.row(row.iter().map(|cell| {
                let shown = if cell.is_empty() { "-" } else { cell };
                (shown, Colour::Plain)
            }));
        }
        table.render(style)
    }

    /// Each row as lines of heading and value.
    pub fn list(&self, style: &Style) -> String {
        let width = self.headings.iter().map(|h| h.len()).max().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            for (heading, cell) in self.headings.iter().zip(row) {
                if !cell.is_empty() {
                    style.paint(&mut out, Colour::Bold, &format!("{heading:width$}"));
                    let _ = writeln!(out, "  {}", escape(cell));
                }
            }
        }
        out
    }

    /// RFC 4180, except that lines end as they do on this system. A cell that a spreadsheet would compute is text.
    pub fn csv(&self) -> String {
        let mut out = String::new();
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|h| h.to_lowercase().replace(' ', "_"))
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (i, cell) in row.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                let cell = escape(cell);
                let computed =
                    cell.starts_with(['=', '+', '-', '@']) && cell.parse::<f64>().is_err();
                let quoted = computed || cell.contains([',', '"', '\n', '\r']);
                if quoted {
                    out.push('"');
                }
                if computed {
                    out.push('\'');
                }
                out.push_str(&cell.replace('"', "\"\""));
                if quoted {
                    out.push('"');
                }
            }
            out.push('\n');
        }
        out
    }
}
