//! Writes events to a stream in one of the formats.

use super::clock::Local;
use super::columns::{Layout, Said};
use super::wide::wide;
use super::{Colour, Format, Style, json, rows};
use keytrail_export::Condense;
use keytrail_model::EventKind;
use keytrail_proto::v1::{Event, Gap};
use pbjson_types::Timestamp;
use std::io::{self, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Writes events one a line. Column headings come with the first event.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    format: Format,
    style: Style,
    layout: Layout,
    header: bool,
    /// The day of the line before, on a terminal.
    day: String,
    /// The last event, if it was one of a group; on a terminal.
    said: Option<Said>,
    /// The same gap again and again is one line and a count.
    condense: Option<Condense>,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, format: Format, style: Style) -> Writer<W> {
        Writer {
            out,
            format,
            style,
            layout: Layout::new(style.width),
            header: matches!(format, Format::Compact | Format::Wide | Format::Csv),
            day: String::new(),
            said: None,
            condense: None,
        }
    }

    /// For people who look on: what is not seen is reported once, and then counted.
    #[must_use]
    pub fn condensed(mut self) -> Writer<W> {
        self.condense = (self.format == Format::Compact).then(Condense::default);
        self
    }

    /// Writes the column headings now rather than with the first event: so that a person sees that it works.
    ///
    /// # Errors
    /// The stream's.
    pub fn header(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.header) {
            return Ok(());
        }
        match self.format {
            Format::Csv => self.whole_line(&rows::EVENT_COLUMNS.join(","))?,
            Format::Wide => {
                let header = Layout::new(None).header(&self.style);
                self.whole_line(&header)?;
            }
            _ => {
                // The zone and the day of now: times of day stand below.
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let now = Timestamp {
                    seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                    nanos: 0,
                };
                self.new_day(&Local::of(&now))?;
                let header = self.layout.header(&self.style);
                self.whole_line(&header)?;
            }
        }
        self.out.flush()
    }

    /// On a terminal lines have a time of day only: the day and its zone stand above.
    fn new_day(&mut self, local: &Local) -> io::Result<()> {
        let day = local.heading();
        if self.style.width.is_none() || self.format != Format::Compact || day == self.day {
            return Ok(());
        }
        let mut line = String::new();
        self.style
            .paint(&mut line, Colour::Dim, &format!("-- {day}"));
        self.day = day;
        self.whole_line(&line)
    }

    /// In one write: what the traced command says at the same time comes before it or after it.
    fn whole_line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(format!("{text}\n").as_bytes())
    }

    /// Writes one event and flushes: readers of pipes see it at once.
    ///
    /// # Errors
    /// The stream's; [`io::ErrorKind::BrokenPipe`] means that nobody reads any more.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        if let Some(condense) = &mut self.condense {
            let now = Instant::now();
            let (reported, reported_before) = match &event.gap {
                Some(gap) => (condense.is_first(gap, now), condense.due(now)),
                None => (true, condense.all(now)),
            };
            for gap in reported_before {
                self.line(&gap_event(gap))?;
            }
            if !reported {
                return Ok(());
            }
        }
        self.line(event)
    }

    fn line(&mut self, event: &Event) -> io::Result<()> {
        self.header()?;
        if let Some(time) = &event.time {
            self.new_day(&Local::of(time))?;
        }
        let mut line = match self.format {
            Format::Compact => self.compact(event),
            Format::Wide => wide(event, &self.style),
            Format::Json => json(event).map_err(io::Error::other)?,
            Format::Yaml => rows::yaml(event)?,
            Format::Csv => rows::event(event),
        };
        line.push('\n');
        // One write a line: lines of several writers do not mix.
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    /// On a terminal what is of one act is one block: files and pipes are searched line by line.
    fn compact(&mut self, event: &Event) -> String {
        let said = self.said.take();
        if event.group != 0 && self.style.width.is_some() {
            self.said = Some(Said::of(event));
        }
        match said.filter(|said| said.goes_on(event)) {
            Some(said) => self.layout.more(event, &said, &self.style),
            None => self.layout.line(event, &self.style),
        }
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
        if !self.format.is_for_people() {
            return Ok(());
        }
        self.whole_line(text)?;
        self.out.flush()
    }

    /// What was kept back until now.
    ///
    /// # Errors
    /// The stream's.
    pub fn finish(&mut self) -> io::Result<()> {
        let kept = match &mut self.condense {
            Some(condense) => condense.all(Instant::now()),
            None => Vec::new(),
        };
        for gap in kept {
            self.line(&gap_event(gap))?;
        }
        Ok(())
    }

    pub fn into_inner(self) -> W {
        self.out
    }
}

/// A gap as an event: what files and terminals show has one schema.
pub fn gap_event(gap: Gap) -> Event {
    Event {
        kind: EventKind::CoverageGap.number(),
        time: gap.to,
        gap: Some(gap),
        ..Default::default()
    }
}
