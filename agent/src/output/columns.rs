//! The columns of `table`. Width goes to what identifies: process and credential are whole at 80 columns, and what a
//! wide terminal has left is used.

use super::clock::Local;
use super::describe;
use super::escape::{Cut, fit, pad};
use super::style::{Colour, Style};
use keytrail_proto::v1::Event;
use unicode_width::UnicodeWidthStr as _;

const GAP: &str = "  ";
const ACTION: usize = 12;
/// Below this the place has a line of its own where it does not fit beside the rest.
const NARROW: usize = 100;
/// From this on there is room for who it was, and for the command.
const ROOMY: usize = 140;
/// What a place cut in its middle must have to say anything.
const WHERE_LEAST: usize = 24;
const COMMAND_LEAST: usize = 16;
/// Who nearly everything is on a host without containers: not worth a word in every line.
const USUAL: &str = "host root";

/// Widths for a terminal; the same for every line, so that columns stay aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    time: usize,
    who: Option<usize>,
    process: usize,
    credential: usize,
    /// `None`: not a terminal, nothing is cut.
    width: Option<usize>,
}

/// What a line said that further events of its group need not say again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Epoch and number of the group.
    group: (u64, u64),
    action: String,
    place: String,
}

impl Said {
    pub fn of(event: &Event) -> Said {
        Said {
            group: (event.id.as_ref().map_or(0, |id| id.epoch), event.group),
            action: describe::action(event).0,
            place: describe::place(event),
        }
    }

    /// Whether an event goes on with this one.
    pub fn goes_on(&self, event: &Event) -> bool {
        let epoch = event.id.as_ref().map_or(0, |id| id.epoch);
        event.group != 0 && self.group == (epoch, event.group)
    }
}

impl Layout {
    pub fn new(width: Option<usize>) -> Layout {
        let Some(width) = width else {
            return Layout {
                // RFC 3339 with milliseconds in UTC; other zones bulge.
                time: 24,
                who: Some(20),
                process: 20,
                credential: 24,
                width: None,
            };
        };
        let spare = width.saturating_sub(NARROW);
        Layout {
            time: if width < NARROW { 8 } else { 12 },
            who: (width >= ROOMY).then(|| (12 + (width - ROOMY) / 8).min(28)),
            process: match width {
                0..76 => 16,
                76..NARROW => 19,
                _ => (20 + spare / 12).min(32),
            },
            credential: match width {
                0..76 => 21,
                76..NARROW => 23,
                _ => (24 + spare / 6).min(48),
            },
            width: Some(width),
        }
    }

    /// Columns before the place, gaps and all.
    fn before(&self) -> usize {
        let who = self.who.map_or(0, |w| w + GAP.len());
        who + self.time + self.process + ACTION + self.credential + 4 * GAP.len()
    }

    pub fn header(&self, style: &Style) -> String {
        let mut line = String::new();
        let mut cell = |text: &str, width: usize| {
            pad(&mut line, &fit(text, width, Cut::End), width);
            line.push_str(GAP);
        };
        cell("TIME", self.time);
        if let Some(width) = self.who {
            cell("WHO", width);
        }
        cell("PROCESS", self.process);
        cell("ACTION", ACTION);
        cell("CREDENTIAL", self.credential);
        line.push_str("WHERE");
        let mut out = String::new();
        style.paint(&mut out, Colour::Bold, &line);
        out
    }

    pub fn line(&self, event: &Event, style: &Style) -> String {
        let mut out = String::new();
        let mut cell = |text: &str, width: usize, colour: Colour, cut: Cut| {
            let mut cell = String::new();
            // Files and pipes are searched: nothing is cut there, even if a column has to bulge.
            let text = match self.width {
                Some(_) => fit(text, width, cut),
                None => text.into(),
            };
            pad(&mut cell, &text, width);
            style.paint(&mut out, colour, &cell);
            out.push_str(GAP);
        };
        let process = event.process.as_ref();
        let who = describe::who(process);
        let (action, colour) = describe::action(event);
        cell(&self.time_of(event), self.time, Colour::Dim, Cut::End);
        if let Some(width) = self.who {
            cell(&who, width, Colour::Plain, Cut::Middle);
        }
        cell(
            &describe::process(process),
            self.process,
            Colour::Plain,
            Cut::Middle,
        );
        cell(&action, ACTION, colour, Cut::End);
        cell(
            &self.credential_of(event),
            self.credential,
            Colour::Plain,
            Cut::Middle,
        );
        let mut place = describe::place(event);
        if !self.fits(&place, "") {
            place = describe::bare_place(event);
        }
        if self.who.is_none() && process.is_some() && who != USUAL {
            place.push_str(&format!(" ({who})"));
        }
        let request = describe::request(event);
        if !request.is_empty() && self.fits(&place, &request) {
            place.push_str(", ");
            place.push_str(&request);
        }
        self.place(&mut out, &place, event, style);
        // Only blanks of our own padding can be at the end.
        out.truncate(out.trim_end().len());
        out
    }

    /// A further event of the group of the one above: the act stands there, and what is another here than in the line before.
    pub fn more(&self, event: &Event, before: &Said, style: &Style) -> String {
        let mut out = String::new();
        let now = Said::of(event);
        let who = self.who.map_or(0, |w| w + GAP.len());
        let blank = self.time + GAP.len() + who + self.process + GAP.len();
        out.extend(std::iter::repeat_n(' ', blank));
        let mut cell = |text: &str, width: usize, colour: Colour| {
            let mut cell = String::new();
            pad(&mut cell, &fit(text, width, Cut::Middle), width);
            style.paint(&mut out, colour, &cell);
            out.push_str(GAP);
        };
        if now.action == before.action {
            cell("and", ACTION, Colour::Dim);
        } else {
            cell(&now.action, ACTION, describe::action(event).1);
        }
        cell(&self.credential_of(event), self.credential, Colour::Plain);
        if now.place != before.place {
            self.place(&mut out, &now.place, event, style);
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn time_of(&self, event: &Event) -> String {
        let Some(time) = &event.time else {
            return "-".into();
        };
        let local = Local::of(time);
        match (self.width, self.time) {
            (None, _) => local.full(),
            (_, ..12) => local.seconds(),
            _ => local.millis(),
        }
    }

    /// With its identifier where there is room for the whole of it.
    fn credential_of(&self, event: &Event) -> String {
        let label = describe::credential(event.credential.as_ref());
        let Some(credential) = event
            .credential
            .as_ref()
            .filter(|c| !c.identifier.is_empty() && self.width.is_some())
        else {
            return label;
        };
        let named = format!("{label} {}", super::escape(&credential.identifier));
        if named.width() <= self.credential {
            named
        } else {
            label
        }
    }

    /// Whether there is room for the place and what is said beside it.
    fn fits(&self, place: &str, more: &str) -> bool {
        self.width.is_none_or(|width| {
            let before = if width < NARROW {
                self.time + GAP.len()
            } else {
                self.before()
            };
            before + place.width() + 2 + more.width() <= width
        })
    }

    fn place(&self, out: &mut String, place: &str, event: &Event, style: &Style) {
        let techniques = describe::techniques(event);
        let Some(width) = self.width else {
            out.push_str(place);
            out.push_str(&techniques);
            return;
        };
        let room = width.saturating_sub(self.before());
        // A path and a host say most at their ends, a sentence at its beginning.
        let cut = if event.gap.is_some() {
            Cut::End
        } else {
            Cut::Middle
        };
        if place.width() > room && width < NARROW {
            let indent = self.time + GAP.len();
            let room = width.saturating_sub(indent).max(WHERE_LEAST);
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(&fit(place, room, cut));
            return;
        }
        if place.width() + techniques.width() > room {
            // Techniques follow from the rest of the line: the first to go.
            out.push_str(&fit(place, room, cut));
            return;
        }
        out.push_str(place);
        out.push_str(&techniques);
        let left = room.saturating_sub(place.width() + techniques.width() + GAP.len());
        let command = describe::command(event.process.as_ref());
        if width >= ROOMY && left >= COMMAND_LEAST && !command.is_empty() {
            out.push_str(GAP);
            style.paint(out, Colour::Dim, &fit(&command, left, Cut::End));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_terminal_is_filled_and_never_overrun() {
        for width in 20..400 {
            let layout = Layout::new(Some(width));
            assert!(layout.header(&Style::PLAIN).width() >= 5);
            if width >= NARROW {
                let room = width - layout.before();
                assert!(room >= WHERE_LEAST, "{width}: {layout:?}");
            }
            // A python and an AWS key are whole.
            if width >= 76 {
                assert!(layout.process >= "python3.11[2128212]".len());
                assert!(layout.credential >= "aws-access-key 9c1e..a2".len());
                assert!(layout.before() <= width, "{width}: {layout:?}");
            }
        }
    }
}
