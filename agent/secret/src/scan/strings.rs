//! Strings of source code that span lines: what stands in them is a text of its own, as YAML or an environment file.

use std::ops::Range;

/// Longest word that ends a document within a script.
const MAX_WORD: usize = 32;

/// How a language writes such strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// `"""` and `'''`; comments begin with `#`.
    Python,
    /// `"""`
    Triple,
    /// Between backticks, with `\` before one that belongs to it.
    Template,
    /// Between backticks, whatever stands there.
    Raw,
    /// `"` and `r#"`.
    Rust,
    /// `<<WORD`, `<<-'WORD'`, `<<~WORD`, `<<<'WORD'`.
    Document,
}

fn notation(path: &str) -> Option<Notation> {
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match ending {
        "py" | "pyi" => Notation::Python,
        "java" | "kt" | "scala" | "groovy" | "cs" | "swift" | "dart" | "ex" | "exs" => {
            Notation::Triple
        }
        "js" | "mjs" | "cjs" | "jsx" | "ts" | "tsx" | "vue" => Notation::Template,
        "go" => Notation::Raw,
        "rs" => Notation::Rust,
        "rb" | "php" | "pl" | "pm" => Notation::Document,
        _ => return None,
    })
}

/// The strings of one text, found at the first question.
pub struct Strings {
    notation: Option<Notation>,
    found: Option<Vec<Range<usize>>>,
}

impl Strings {
    pub fn of(path: &str) -> Self {
        Self {
            notation: notation(path),
            found: None,
        }
    }

    /// Whether the place lies within a string that spans lines.
    pub fn hold(&mut self, text: &[u8], at: usize) -> bool {
        let Some(notation) = self.notation else {
            return false;
        };
        let found = self
            .found
            .get_or_insert_with(|| spanning_lines(text, notation));
        let next = found.partition_point(|string| string.end <= at);
        found.get(next).is_some_and(|string| string.start <= at)
    }
}

/// Most words that begin a document and never end one: each costs a look at all that follows.
const MAX_UNENDED: usize = 16;

/// What begins at a place.
enum Begins {
    /// A string with this inside, and the place behind it.
    String(Range<usize>, usize),
    /// Something else of this length.
    Other(usize),
    /// A string over lines without an end: what follows cannot be told apart.
    Unended,
}

/// All of them, in their order.
fn spanning_lines(text: &[u8], notation: Notation) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut unended = 0;
    let mut at = 0;
    while at < text.len() {
        if notation == Notation::Document
            && text[at..].starts_with(b"<<")
            && unended < MAX_UNENDED
            && let Some(word) = opens_document(text, at)
        {
            if let Some(body) = document(text, word) {
                at = body.end;
                out.push(body);
                continue;
            }
            unended += 1;
        }
        match begins(text, at, notation) {
            Begins::String(inside, next) => {
                if memchr::memchr(b'\n', &text[inside.clone()]).is_some() {
                    out.push(inside);
                }
                at = next;
            }
            Begins::Other(length) => at += length,
            Begins::Unended => break,
        }
    }
    out
}

fn begins(text: &[u8], at: usize, notation: Notation) -> Begins {
    let rest = &text[at..];
    let spanning = |open: usize, sign: &[u8], escapes: bool| match until(rest, open, sign, escapes)
    {
        Some(end) => Begins::String(at + open..at + end, at + end + sign.len()),
        None => Begins::Unended,
    };
    match (notation, rest) {
        // A sign of an expression, or within one.
        (_, [b'\\', ..]) => Begins::Other(2),
        (Notation::Python, [b'\'', b'\'', b'\'', ..]) => spanning(3, b"'''", true),
        (Notation::Python | Notation::Triple, [b'"', b'"', b'"', ..]) => {
            spanning(3, b"\"\"\"", true)
        }
        (Notation::Template, [b'`', ..]) => spanning(1, b"`", true),
        (Notation::Raw, [b'`', ..]) => spanning(1, b"`", false),
        (Notation::Rust, [b'r', b'#', b'"', ..]) => spanning(3, b"\"#", false),
        (Notation::Rust, [b'"', ..]) => spanning(1, b"\"", true),
        // A character; otherwise a lifetime.
        (Notation::Rust, [b'\'', b'\\', _, b'\'', ..]) => Begins::Other(4),
        (Notation::Rust, [b'\'', _, b'\'', ..]) => Begins::Other(3),
        (Notation::Rust, [b'\'', ..]) => Begins::Other(1),
        // A string of one line: without an end there, it is an apostrophe.
        (_, [sign @ (b'"' | b'\''), ..]) => match ends_on_line(rest, *sign) {
            Some(end) => Begins::String(at + 1..at + end, at + end + 1),
            None => Begins::Other(1),
        },
        _ => Begins::Other(comment(rest, notation).max(1)),
    }
}

/// Where the sign is that ends a string which begins at `from`; a backslash takes the next byte with it.
fn until(text: &[u8], from: usize, sign: &[u8], escapes: bool) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr::memchr2(sign[0], b'\\', text.get(at..)?) {
        at += found;
        if text[at..].starts_with(sign) {
            return Some(at);
        }
        at += if escapes && text[at] == b'\\' { 2 } else { 1 };
    }
    None
}

/// The same within the line.
fn ends_on_line(text: &[u8], sign: u8) -> Option<usize> {
    let mut at = 1;
    while let Some(found) = memchr::memchr3(sign, b'\\', b'\n', text.get(at..)?) {
        at += found;
        match text[at] {
            b'\n' => return None,
            b'\\' => at += 2,
            _ => return Some(at),
        }
    }
    None
}

/// The word that ends the document which `<<` begins here.
fn opens_document(text: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &text[at + 2..];
    // `x << NAME` shifts.
    let head = match rest.strip_prefix(b"<") {
        Some(head) => head.strip_prefix(b" ").unwrap_or(head),
        None => match rest {
            [b'-' | b'~', head @ ..] => head,
            _ => rest,
        },
    };
    let head = match head {
        [b'"' | b'\'', quoted @ ..] => quoted,
        _ => head,
    };
    let length = head
        .iter()
        .take(MAX_WORD)
        .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b'_')
        .count();
    let start = text.len() - head.len();
    (length >= 2 && head[0].is_ascii_alphabetic()).then_some(start..start + length)
}

/// The lines behind the one with the word up to the one that begins with it.
fn document(text: &[u8], word: Range<usize>) -> Option<Range<usize>> {
    let start = word.end + memchr::memchr(b'\n', &text[word.end..])?;
    let word = &text[word];
    let mut end = start + 1;
    for line in text[end..].split_inclusive(|b| *b == b'\n') {
        let behind = line.trim_ascii_start().strip_prefix(word);
        if behind.is_some_and(|rest| rest.first().is_none_or(|b| !b.is_ascii_alphanumeric())) {
            return Some(start..end);
        }
        end += line.len();
    }
    None
}

/// The length of the comment that begins here: an apostrophe in it opens no string.
fn comment(rest: &[u8], notation: Notation) -> usize {
    let line = || memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    match (notation, rest) {
        (Notation::Python | Notation::Document, [b'#', ..]) => line(),
        (Notation::Python, _) => 0,
        (_, [b'/', b'/', ..]) => line(),
        (_, [b'/', b'*', ..]) => {
            memchr::memmem::find(rest, b"*/").map_or(rest.len(), |end| end + 2)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the word `here` lies within one.
    fn inside(path: &str, text: &str) -> bool {
        let at = text.find("here").unwrap();
        Strings::of(path).hold(text.as_bytes(), at)
    }

    #[test]
    fn strings_over_lines_in_their_languages() {
        for (path, text) in [
            ("a.py", "x = \"\"\"\nhere: 1\n\"\"\"\n"),
            ("a.py", "x = 'it\\'s' # don't\ny = '''\nhere=1\n'''"),
            ("a.go", "x := `\nhere: 1\n`"),
            ("a.go", "c := '`'\nx := `\\`\ny := `\nhere: 1\n`"),
            ("a.js", "// `\nconst x = `\n${a}\nhere: 1\n`;"),
            ("A.java", "String x = \"\"\"\n  here: 1\n  \"\"\";"),
            ("a.rs", "let c = '\"'; let x = r#\"\nhere: \"1\"\n\"#;"),
            ("a.rs", "fn f<'a>() { \"\nhere: 1\n\" }"),
            ("a.rb", "x = <<~YAML\n  here: 1\nYAML\n"),
            ("a.php", "$x = <<<'EOT'\nhere=1\nEOT;\n"),
        ] {
            assert!(inside(path, text), "{path} {text}");
        }
        for (path, text) in [
            ("a.py", "x = \"\"\"\na: 1\n\"\"\"\nhere: 1\n"),
            ("a.py", "# \"\"\"\nhere = 1\n# \"\"\"\n"),
            ("a.py", "x = \"here: 1\"\n"),
            ("a.py", "x = \"\"\"\nhere: 1\n"),
            ("a.go", "x := \"`\"\nhere: 1\ny := \"`\""),
            ("a.js", "/* it's ` */ here = 1; /* ` */"),
            ("a.rs", "let a = \"x\";\nlet here = 1;\nlet b = \"y\";"),
            ("a.rb", "x << FOO\nhere: 1\n"),
            ("a.txt", "x = \"\"\"\nhere: 1\n\"\"\"\n"),
        ] {
            assert!(!inside(path, text), "{path} {text}");
        }
    }
}
