//! Colour and width: what the stream we write to can show.

use std::os::fd::AsFd;

/// How text is set off. Never the only carrier of a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Dim,
    Bold,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Plain => "0",
            Colour::Dim => "2",
            Colour::Bold => "1",
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Cyan => "36",
        }
    }
}

/// What a stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
    /// Columns of the terminal; `None` when it is not a terminal: then no last column is cut.
    pub width: Option<usize>,
}

impl Style {
    /// No colour, no width: files and pipes.
    pub const PLAIN: Style = Style {
        colour: false,
        width: None,
    };

    /// What `stream` can show; NO_COLOR (<https://no-color.org>) and TERM=dumb are heeded.
    pub fn of(stream: impl AsFd) -> Style {
        if !rustix::termios::isatty(&stream) {
            return Style::PLAIN;
        }
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let width = rustix::termios::tcgetwinsize(&stream)
            .map(|w| usize::from(w.ws_col))
            .unwrap_or(0);
        Style {
            colour: !set("NO_COLOR") && !dumb,
            // A terminal that does not tell (0, or a serial line) is taken for the classic one.
            width: Some(if width < 20 { 80 } else { width }),
        }
    }

    /// The same without an end of the lines.
    #[must_use]
    pub fn uncut(self) -> Style {
        Style {
            width: None,
            ..self
        }
    }

    /// Appends `text` in `colour` when the stream shows colours.
    pub fn paint(&self, out: &mut String, colour: Colour, text: &str) {
        if self.colour && colour != Colour::Plain && !text.trim().is_empty() {
            out.push_str("\x1b[");
            out.push_str(colour.code());
            out.push('m');
            out.push_str(text);
            out.push_str("\x1b[0m");
        } else {
            out.push_str(text);
        }
    }
}
