//! A table whose columns fit what is in them.

use super::escape::{escape, pad};
use super::style::{Colour, Style};
use unicode_width::UnicodeWidthStr as _;

/// Rows of text, aligned when rendered. Cells are escaped as they come in.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<(String, Colour)>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table {
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = (&'a str, Colour)>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|(text, colour)| (escape(text).into_owned(), colour))
                .collect(),
        );
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All lines, each with a line break.
    pub fn render(&self, style: &Style) -> String {
        let width = |i: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|r| r.get(i))
                .map(|c| c.0.width());
            cells
                .chain(self.header.get(i).map(|h| h.width()))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut out = String::new();
        let header = self
            .header
            .iter()
            .map(|h| (h.clone(), Colour::Bold))
            .collect::<Vec<_>>();
        for row in std::iter::once(&header).chain(&self.rows) {
            for (i, (text, colour)) in row.iter().enumerate() {
                let mut cell = String::new();
                let last = i + 1 == row.len();
                pad(
                    &mut cell,
                    text,
                    if last {
                        0
                    } else {
                        widths.get(i).copied().unwrap_or(0) + 2
                    },
                );
                style.paint(&mut out, *colour, &cell);
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}
