//! docs/COVERAGE.md: which hook serves which signal, by tier and kernel. Made of the lines that the guests' case
//! `matrix::signals_are_as_documented` writes.

use crate::{cmd, vm::Kernel};
use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeMap, fmt::Write as _, fs};

const MARK: &str = "<!-- kernels -->";
/// What a line of the case begins with.
const LINE: &str = "matrix\t";

/// A row of the table: the place of its signal among the others, the signal, the tier, the hook.
type Row = (usize, String, String, String);

/// What the guests wrote.
#[derive(Default)]
pub struct Matrix {
    signals: Vec<String>,
    /// By kernel: state and reason.
    rows: BTreeMap<Row, BTreeMap<String, (String, String)>>,
    kernels: Vec<String>,
}

impl Matrix {
    pub fn read(&mut self, line: &str) {
        let fields: Vec<&str> = match line.trim_end().strip_prefix(LINE) {
            Some(rest) => rest.split('\t').collect(),
            None => return,
        };
        let (Some([kernel, signal, tier, hook, state]), reason) = (
            fields.get(..5).and_then(|f| <[&str; 5]>::try_from(f).ok()),
            fields.get(5),
        ) else {
            return;
        };
        if !self.kernels.iter().any(|known| known == kernel) {
            self.kernels.push(kernel.to_owned());
        }
        let place = self
            .signals
            .iter()
            .position(|known| known == signal)
            .unwrap_or_else(|| {
                self.signals.push(signal.to_owned());
                self.signals.len() - 1
            });
        let row = (place, signal.to_owned(), tier.to_owned(), hook.to_owned());
        let cell = (
            state.to_owned(),
            reason.map_or(String::new(), |r| (*r).to_owned()),
        );
        self.rows
            .entry(row)
            .or_default()
            .insert(kernel.to_owned(), cell);
    }

    /// Puts the table into the document.
    ///
    /// # Errors
    /// A kernel is missing, or the document has no place for the table.
    pub fn write(&self, kernels: &[Kernel]) -> Result<()> {
        let kernels: Vec<String> = kernels.iter().map(Kernel::to_string).collect();
        if let Some(missing) = kernels.iter().find(|kernel| !self.kernels.contains(kernel)) {
            bail!("nothing was measured on Linux {missing}: docs/COVERAGE.md stays as it is");
        }
        let path = cmd::root().join("docs/COVERAGE.md");
        let document = fs::read_to_string(&path).context("cannot read docs/COVERAGE.md")?;
        let parts: Vec<&str> = document.split(MARK).collect();
        let [before, _, after] = parts[..] else {
            bail!("docs/COVERAGE.md: {MARK} has to stand there twice");
        };
        let table = self.table(&kernels);
        fs::write(&path, format!("{before}{MARK}\n{table}{MARK}{after}"))?;
        Ok(())
    }

    fn table(&self, kernels: &[String]) -> String {
        let mut out = String::from("| signal | tier | hook |");
        let mut notes: Vec<&str> = Vec::new();
        for kernel in kernels {
            let _ = write!(out, " {kernel} |");
        }
        out.push_str("\n|---|---|---|");
        out.push_str(&"---|".repeat(kernels.len()));
        for ((_, signal, tier, hook), cells) in &self.rows {
            let hook = if hook.is_empty() {
                String::new()
            } else {
                format!("`{hook}`")
            };
            let _ = write!(out, "\n| {signal} | {tier} | {hook} |");
            for kernel in kernels {
                let _ = match cells.get(kernel) {
                    None => write!(out, " - |"),
                    Some((state, reason)) if reason.is_empty() => write!(out, " {state} |"),
                    Some((state, reason)) => {
                        let known = notes.iter().position(|note| note == reason);
                        let number = known.unwrap_or_else(|| {
                            notes.push(reason);
                            notes.len() - 1
                        });
                        write!(out, " {state} ({}) |", number + 1)
                    }
                };
            }
        }
        out.push('\n');
        for (number, note) in notes.iter().enumerate() {
            let _ = write!(out, "\n({}) {note}\n", number + 1);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Matrix};

    #[test]
    fn a_table_of_lines() {
        let mut matrix = Matrix::default();
        for line in [
            "test matrix::x ...",
            "matrix\t5.10\texec\tbase\traw_tp:x\tfired\t",
            "matrix\t5.10\ttcp_send\tfentry\t\tnone\tno trampolines",
            "matrix\t6.1\texec\tbase\traw_tp:x\tattached\t\r",
            "matrix\t6.1\ttcp_send\tfentry\tfentry:y\tfired\t",
            "matrix\tbroken",
        ] {
            matrix.read(line);
        }
        assert_eq!(
            matrix.table(&["5.10".to_owned(), "6.1".to_owned()]),
            "| signal | tier | hook | 5.10 | 6.1 |\n|---|---|---|---|---|\n\
             | exec | base | `raw_tp:x` | fired | attached |\n\
             | tcp_send | fentry |  | none (1) | - |\n\
             | tcp_send | fentry | `fentry:y` | - | fired |\n\n(1) no trampolines\n"
        );
        assert!(
            matrix
                .write(&[Kernel::of(crate::arch::Arch::X86_64, "7.3")])
                .is_err()
        );
    }
}
