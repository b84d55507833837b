//! Which columns a terminal has room for, and how wide each may be.

use unicode_width::UnicodeWidthStr as _;

/// Between two columns.
const GAP: usize = 2;
/// Widest cell where there is no terminal to fit; the last column has no bound there.
const WIDEST: usize = 120;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// Narrower than this it says nothing, unless its cells are.
    pub least: usize,
    /// The highest go first when there is no room; 0 always stays.
    pub spare: u8,
}

impl Column {
    pub const fn new(title: &'static str, least: usize, spare: u8) -> Column {
        Column {
            title,
            least,
            spare,
        }
    }
}

/// The columns that are shown, by index, with their widths.
#[must_use]
pub fn fitted(
    columns: &[Column],
    rows: &[Vec<String>],
    terminal: Option<usize>,
) -> Vec<(usize, usize)> {
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
            widest.max(column.title.width())
        })
        .collect();
    let last = columns.len().saturating_sub(1);
    let Some(terminal) = terminal else {
        return natural
            .into_iter()
            .enumerate()
            .map(|(i, n)| (i, if i == last { n } else { n.min(WIDEST) }))
            .collect();
    };
    let least = |i: usize| natural[i].min(columns[i].least.max(columns[i].title.width()));
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| -> usize {
        shown
            .iter()
            .map(|&i| least(i) + GAP)
            .sum::<usize>()
            .saturating_sub(GAP)
    };
    while needed(&shown) > terminal {
        let Some(at) = (0..shown.len())
            .filter(|&at| columns[shown[at]].spare > 0)
            .max_by_key(|&at| columns[shown[at]].spare)
        else {
            break;
        };
        shown.remove(at);
    }
    let mut left = terminal.saturating_sub(needed(&shown));
    let mut widths: Vec<(usize, usize)> = shown.iter().map(|&i| (i, least(i))).collect();
    // Those that need the least get all they need first.
    let mut order: Vec<usize> = (0..widths.len()).collect();
    order.sort_by_key(|&at| natural[widths[at].0] - widths[at].1);
    for (n, &at) in order.iter().enumerate() {
        let (i, width) = widths[at];
        let more = (natural[i] - width).min(left / (order.len() - n));
        widths[at].1 += more;
        left -= more;
    }
    // A terminal narrower than what always stays: the last one gives way.
    let total: usize = widths
        .iter()
        .map(|(_, w)| w + GAP)
        .sum::<usize>()
        .saturating_sub(GAP);
    if let Some((_, width)) = widths.last_mut() {
        *width = width.saturating_sub(total.saturating_sub(terminal)).max(1);
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("KIND", 16, 0),
        Column::new("ID", 14, 1),
        Column::new("PRINT", 16, 2),
        Column::new("WHERE", 20, 0),
    ];

    fn total(terminal: usize, rows: &[Vec<String>]) -> (usize, Vec<usize>) {
        let fitted = fitted(COLUMNS, rows, Some(terminal));
        let width: usize = fitted.iter().map(|(_, w)| w + GAP).sum::<usize>() - GAP;
        (width, fitted.into_iter().map(|(i, _)| i).collect())
    }

    #[test]
    fn every_terminal_is_kept_to_and_the_least_important_goes_first() {
        let row = |n: usize| ["k", "i", "p", "w"].map(|c| c.repeat(n)).to_vec();
        let rows = [row(60), row(3)];
        for terminal in [40, 60, 80, 120, 300] {
            let (width, _) = total(terminal, &rows);
            assert!(width <= terminal, "{width} in {terminal}");
        }
        assert_eq!(total(300, &rows).1, [0, 1, 2, 3]);
        assert_eq!(total(60, &rows).1, [0, 1, 3]);
        assert_eq!(total(40, &rows).1, [0, 3]);
        // What is short takes no more than it needs.
        assert_eq!(total(80, &[row(2)]).0, 4 + 2 + 5 + 5 + 3 * GAP);
        // Where there is no terminal nothing goes, and the last column is whole.
        let plain = fitted(COLUMNS, &[row(500)], None);
        assert_eq!(plain, [(0, WIDEST), (1, WIDEST), (2, WIDEST), (3, 500)]);
    }
}
