//! Which hook serves which signal on the kernel that was booted: as docs/COVERAGE.md has it.

use crate::{
    command::act,
    events::{Signal, Tier},
    machine::{Scratch, kernel, keytrail, turn},
};
use keytrail_proto::v1::{GetStatusResponse, SignalStatus};
use std::io::{self, Write as _};

const DOCUMENT: &str = include_str!("../../../docs/COVERAGE.md");
/// Around the table in the document.
const MARK: &str = "<!-- kernels -->";
const TIERS: [Tier; 2] = [Tier::Base, Tier::Fentry];

/// One cell of the table, and the row it stands in.
#[derive(Debug, PartialEq, Eq)]
struct Cell {
    signal: &'static str,
    tier: &'static str,
    /// As `keytrail doctor` names it; empty when there is none.
    hook: String,
    state: &'static str,
    reason: String,
}

/// What `keytrail doctor` finds out on this kernel is what the document says of it, hook by hook; a kernel that the document
/// does not have is refused. The lines it writes are what the document is made of (`KEYTRAIL_BLESS=1 cargo xtask test vm
/// --matrix quick`).
pub fn signals_are_as_documented() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (major, minor) = kernel();
    // As xtask names its kernels.
    let machine = if cfg!(target_arch = "aarch64") {
        "-aarch64"
    } else {
        ""
    };
    let version = format!("{major}.{minor}{machine}");
    let mut cells = Vec::new();
    for tier in TIERS {
        let address = format!("unix:{}", scratch.join("none").display());
        let done = act(keytrail())
            .args(["doctor", "-o", "json", "--tier", tier.word()])
            .args(["--address", &address])
            .env("HOME", scratch.path())
            .run();
        let text = done.stdout_text();
        let status: GetStatusResponse = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text}\n{}", done.stderr_text()));
        let of_tier: Vec<Cell> = status
            .signals
            .iter()
            .filter_map(|s| cell(s, tier))
            .collect();
        assert!(!of_tier.is_empty(), "{text}");
        cells.extend(of_tier);
    }
    // Not by print!, which is kept of a test that passes.
    let mut out = io::stdout().lock();
    for Cell {
        signal,
        tier,
        hook,
        state,
        reason,
    } in &cells
    {
        writeln!(
            out,
            "\nmatrix\t{version}\t{signal}\t{tier}\t{hook}\t{state}\t{reason}"
        )
        .unwrap();
    }
    drop(out);
    if std::env::var_os("KEYTRAIL_BLESS").is_some() {
        return;
    }
    let documented = documented(DOCUMENT, &version);
    for cell in &cells {
        let row = documented
            .iter()
            .find(|row| (row.signal, row.tier, &row.hook) == (cell.signal, cell.tier, &cell.hook));
        assert_eq!(
            row.map(|row| (row.state, row.reason.as_str())),
            Some((cell.state, cell.reason.as_str())),
            "Linux {version}: {cell:?}"
        );
    }
    assert_eq!(
        documented.len(),
        cells.len(),
        "Linux {version}: {documented:?}"
    );
}

/// None where the better tier has no hook for the signal at all.
fn cell(status: &SignalStatus, tier: Tier) -> Option<Cell> {
    let signal = Signal::of_number(status.signal)?.word();
    let better = |hook: &str| hook.contains("fentry:") || hook.contains("fexit:");
    let served = status.tier == tier.number();
    let refused: Vec<&str> = status
        .refused
        .iter()
        .filter(|refused| tier == Tier::Base || better(&refused.hook))
        .map(|refused| refused.reason.as_str())
        .collect();
    if tier == Tier::Fentry && !served && refused.is_empty() {
        return None;
    }
    let (state, reason) = match (served, status.self_test.as_str()) {
        (true, "fired") => ("fired", String::new()),
        (true, "") => ("attached", String::new()),
        (true, why) => ("silent", why.to_owned()),
        (false, _) => ("none", refused.join("; ")),
    };
    Some(Cell {
        signal,
        tier: tier.word(),
        hook: if served {
            status.hook.clone()
        } else {
            String::new()
        },
        state,
        reason,
    })
}

/// What the document says of one kernel.
fn documented(document: &'static str, version: &str) -> Vec<Cell> {
    let table = document.split(MARK).nth(1).unwrap_or_default();
    let fields = |line: &'static str| -> Vec<&'static str> {
        line.trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect()
    };
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(fields)
        .collect();
    let Some(column) = rows
        .first()
        .and_then(|head| head.iter().position(|name| *name == version))
    else {
        panic!(
            "docs/COVERAGE.md has no column for Linux {version}: {:?}",
            rows.first()
        );
    };
    let note = |number: &str| -> String {
        let start = format!("({number}) ");
        let found = table.lines().find_map(|line| line.strip_prefix(&start));
        found
            .unwrap_or_else(|| panic!("no note ({number})"))
            .trim()
            .to_owned()
    };
    rows.iter()
        .skip(2)
        .filter(|row| row[column] != "-")
        .map(|row| {
            let (state, reason) = match row[column].split_once(" (") {
                Some((state, number)) => (state, note(number.trim_end_matches(')'))),
                None => (row[column], String::new()),
            };
            Cell {
                signal: row[0],
                tier: row[1],
                hook: row[2].trim_matches('`').to_owned(),
                state,
                reason,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Cell, documented};

    const TABLE: &str = "\
<!-- kernels -->
| signal | tier | hook | 5.10 | 6.1 |
|---|---|---|---|---|
| exec | base | `raw_tp:x` | fired | fired |
| tcp_send | fentry | `fentry:y` | - | attached |
| tcp_send | fentry |  | none (1) | - |

(1) no trampolines
<!-- kernels -->";

    #[test]
    fn a_column_of_the_document() {
        let cell = |signal, tier, hook: &str, state, reason: &str| Cell {
            signal,
            tier,
            hook: hook.to_owned(),
            state,
            reason: reason.to_owned(),
        };
        assert_eq!(
            documented(TABLE, "5.10"),
            [
                cell("exec", "base", "raw_tp:x", "fired", ""),
                cell("tcp_send", "fentry", "", "none", "no trampolines"),
            ]
        );
        assert_eq!(documented(TABLE, "6.1").len(), 2);
    }

    #[test]
    #[should_panic(expected = "no column for Linux 4.19")]
    fn a_kernel_that_it_does_not_have() {
        documented(TABLE, "4.19");
    }
}
