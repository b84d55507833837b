//! Makes any string safe to show on one line of a terminal, and cuts it to a width.

use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Characters that would move the cursor, hide or reorder text, or break the line.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, zero-width and directional marks, separators, bidirectional overrides and isolates, BOM,
            // interlinear annotations, tags: all change what a reader sees without being seen.
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The string with everything that is not plainly visible written as an escape (`\n`, `\u{1b}`).
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_unsafe(c) {
            false => out.push(c),
            true if matches!(c, '\n' | '\r' | '\t') => out.extend(c.escape_default()),
            true => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// Which part of a text may go when it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Keep the beginning.
    End,
    /// Keep both ends: paths and host names.
    Middle,
}

/// An already escaped text in exactly `width` terminal columns or fewer, an ellipsis where something was cut.
pub fn fit(text: &str, width: usize, cut: Cut) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    if width == 0 {
        return Cow::Borrowed("");
    }
    let room = width - 1;
    let (head, tail) = match cut {
        Cut::End => (room, 0),
        // The end of a path says more than its beginning.
        Cut::Middle => (room / 3, room - room / 3),
    };
    let front = take(text.chars(), head);
    let back: String = take(text.chars().rev(), tail).chars().rev().collect();
    Cow::Owned(format!("{front}…{back}"))
}

fn take(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

/// Appends `text` and blanks up to `width` columns.
pub fn pad(out: &mut String, text: &str, width: usize) {
    out.push_str(text);
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width())));
}

/// A text on lines of `width` columns, broken at blanks, those behind the first indented; one line where there is no width. A
/// word that is longer stands on a line of its own.
pub fn fold(text: &str, width: Option<usize>) -> Cow<'_, str> {
    const INDENT: &str = "   ";
    let Some(width) = width.filter(|width| text.width() > *width) else {
        return text.into();
    };
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let long = word.width();
        if used > 0 && used + 1 + long > width {
            out.push('\n');
            out.push_str(INDENT);
            used = INDENT.len();
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += long;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_shown_not_obeyed() {
        assert_eq!(escape("plain é 日本"), "plain é 日本");
        assert_eq!(escape("a\x1b[2J\rb\n"), "a\\u{1b}[2J\\rb\\n");
        assert_eq!(escape("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(escape("txt.\u{202e}exe"), "txt.\\u{202e}exe");
        assert_eq!(
            escape("\u{200b}\u{2066}\u{feff}"),
            "\\u{200b}\\u{2066}\\u{feff}"
        );
    }

    #[test]
    fn cuts() {
        assert_eq!(
            fit("/root/.aws/credentials", 12, Cut::Middle),
            "/ro…dentials"
        );
        assert_eq!(fit("abcdef", 4, Cut::End), "abc…");
        assert_eq!(fit("abc", 3, Cut::End), "abc");
        assert_eq!(fit("abc", 0, Cut::End), "");
        assert_eq!(fit("abc", 1, Cut::Middle), "…");
    }

    #[test]
    fn folds() {
        assert_eq!(fold("-- aa bb cc", None), "-- aa bb cc");
        assert_eq!(fold("-- aa bb cc", Some(11)), "-- aa bb cc");
        assert_eq!(fold("-- aa bb cc", Some(9)), "-- aa bb\n   cc");
        assert_eq!(
            fold("-- aa bbbbbbbbbb cc", Some(9)),
            "-- aa\n   bbbbbbbbbb\n   cc"
        );
    }

    proptest! {
        #[test]
        fn folded_is_narrow_and_all_there(words in prop::collection::vec("[a-z]{1,17}", 1..30), width in 20usize..60) {
            let text = words.join(" ");
            let folded = fold(&text, Some(width));
            prop_assert!(folded.lines().all(|line| line.width() <= width));
            prop_assert_eq!(folded.split_whitespace().collect::<Vec<_>>().join(" "), text);
        }

        #[test]
        fn never_wider_never_unsafe(text in "\\PC*|.*", width in 0usize..40) {
            let escaped = escape(&text);
            prop_assert!(!escaped.chars().any(is_unsafe));
            for cut in [Cut::End, Cut::Middle] {
                prop_assert!(fit(&escaped, width, cut).width() <= width);
            }
        }
    }
}
