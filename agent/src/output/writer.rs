//! Writes events to a stream in one of the formats.

use super::columns::{Layout, wide};
use super::{Format, Style, json};
use keytrail_proto::v1::{Event, Gap};
use std::io::{self, Write};

/// Writes events one a line. Column headings come with the first event.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    format: Format,
    style: Style,
    layout: Layout,
    header: bool,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, format: Format, style: Style) -> Writer<W> {
        Writer {
            out,
            format,
            style,
            layout: Layout::new(style.width),
            header: format != Format::Json,
        }
    }

    /// Writes the column headings now rather than with the first event: so that a person sees that it works.
    ///
    /// # Errors
    /// The stream's.
    pub fn header(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.header) {
            let layout = if self.format == Format::Wide {
                Layout::new(None)
            } else {
                self.layout
            };
            writeln!(self.out, "{}", layout.header(&self.style))?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Writes one event and flushes: readers of pipes see it at once.
    ///
    /// # Errors
    /// The stream's; [`io::ErrorKind::BrokenPipe`] means that nobody reads any more.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        self.header()?;
        let mut line = match self.format {
            Format::Compact => self.layout.line(event, &self.style),
            Format::Wide => wide(event, &self.style),
            Format::Json => json(event).map_err(io::Error::other)?,
        };
        line.push('\n');
        // One write a line: lines of several writers do not mix.
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    /// Writes a gap that came beside the events as the event it is.
    ///
    /// # Errors
    /// As [`Writer::event`].
    pub fn gap(&mut self, gap: Gap) -> io::Result<()> {
        self.event(&gap_event(gap))
    }

    /// Writes a line that is not an event (a footer), unless the output is for programs.
    ///
    /// # Errors
    /// The stream's.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        if self.format == Format::Json {
            return Ok(());
        }
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    pub fn into_inner(self) -> W {
        self.out
    }
}

/// A gap as an event: what files and terminals show has one schema.
pub fn gap_event(gap: Gap) -> Event {
    Event {
        kind: "coverage_gap".into(),
        time: gap.to,
        gap: Some(gap),
        ..Default::default()
    }
}
