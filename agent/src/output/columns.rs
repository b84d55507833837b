//! The columns of `compact` and `wide`.

use super::describe;
use super::escape::{Cut, fit, pad};
use super::style::{Colour, Style};
use keytrail_proto::v1::Event;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

/// Heading, and widths: least, good, most. WHERE, the last, takes the rest.
const COLUMNS: [(&str, [usize; 3]); 5] = [
    ("TIME", [12, 12, 12]),
    ("WHO", [9, 12, 22]),
    ("PROCESS", [12, 16, 20]),
    ("ACTION", [11, 12, 13]),
    ("CREDENTIAL", [14, 23, 30]),
];
const GAP: &str = "  ";
/// What WHERE gets before the others grow to a good width, and before they grow to their most.
const WHERE: [usize; 2] = [18, 50];

/// Widths for a terminal; the same for every line, so that columns stay aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    widths: [usize; 5],
    last: Option<usize>,
}

impl Layout {
    pub fn new(width: Option<usize>) -> Layout {
        let Some(width) = width else {
            return Layout {
                widths: COLUMNS.map(|c| c.1[2]),
                last: None,
            };
        };
        let mut widths = COLUMNS.map(|c| c.1[0]);
        for (stage, last) in WHERE.into_iter().enumerate() {
            let used: usize = widths.iter().map(|w| w + GAP.len()).sum();
            let mut spare = width.saturating_sub(used + last);
            // What tells credentials and processes apart matters most: from the right.
            for (column, (_, limits)) in widths.iter_mut().zip(COLUMNS).rev() {
                let grow = spare.min(limits[stage + 1].saturating_sub(*column));
                *column += grow;
                spare -= grow;
            }
        }
        let used: usize = widths.iter().map(|w| w + GAP.len()).sum();
        Layout {
            widths,
            last: Some(width.saturating_sub(used).max(1)),
        }
    }

    pub fn header(&self, style: &Style) -> String {
        let mut line = String::new();
        for (column, width) in COLUMNS.iter().zip(self.widths) {
            pad(&mut line, &fit(column.0, width, Cut::End), width);
            line.push_str(GAP);
        }
        line.push_str("WHERE");
        let mut out = String::new();
        style.paint(&mut out, Colour::Bold, &line);
        out
    }

    pub fn line(&self, event: &Event, style: &Style) -> String {
        let (action, colour) = describe::action(event);
        let cells = [
            (
                describe::time_of_day(event.time.as_ref()),
                Colour::Dim,
                Cut::End,
            ),
            (
                describe::who(event.process.as_ref()),
                Colour::Plain,
                Cut::Middle,
            ),
            (
                describe::process(event.process.as_ref()),
                Colour::Plain,
                Cut::Middle,
            ),
            (action, colour, Cut::End),
            (
                describe::credential(event.credential.as_ref()),
                Colour::Plain,
                Cut::Middle,
            ),
        ];
        let mut out = String::new();
        for ((text, colour, cut), width) in cells.into_iter().zip(self.widths) {
            let mut cell = String::new();
            // Files and pipes are searched: nothing is cut there, even if a column has to bulge.
            let text = match self.last {
                Some(_) => fit(&text, width, cut),
                None => text.into(),
            };
            pad(&mut cell, &text, width);
            style.paint(&mut out, colour, &cell);
            out.push_str(GAP);
        }
        let place = describe::place(event);
        let techniques = describe::techniques(event);
        match self.last {
            Some(width) if place.width() + techniques.width() > width => {
                // Techniques follow from the rest of the line: the first to go.
                out.push_str(&fit(&place, width, Cut::Middle));
            }
            _ => {
                out.push_str(&place);
                out.push_str(&techniques);
            }
        }
        // Only blanks of our own padding can be at the end.
        out.truncate(out.trim_end().len());
        out
    }
}

/// One line with everything: nothing is cut, whatever the terminal's width.
pub fn wide(event: &Event, style: &Style) -> String {
    let mut out = Layout::new(None).line(event, style);
    let mut more = String::new();
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(more, " {name}={}", super::escape(value));
        }
    };
    if let Some(c) = &event.credential {
        say("id", &c.identifier);
        say("fingerprint", &c.fingerprint);
        say("confidence", &format!("{:.2}", c.confidence));
        say(
            "expires",
            &c.expires
                .as_ref()
                .map(|t| t.seconds.to_string())
                .unwrap_or_default(),
        );
    }
    if let Some(s) = &event.source {
        say("from", &super::describe::source(s));
        say("mode", &s.mode);
        if s.r#type == "file" {
            say("owner", &format!("{}:{}", s.owner_uid, s.owner_gid));
        }
    }
    if let Some(e) = &event.evidence {
        say("grade", &e.grade);
        say("transform", &e.transform);
        say("part", &e.part);
        say("hook", &e.hook);
        say("destination_by", &e.destination_method);
        if e.payload_bytes > 0 {
            say(
                "inspected",
                &format!("{}/{}", e.inspected_bytes, e.payload_bytes),
            );
        }
    }
    if let Some(d) = &event.destination {
        if !d.ip.is_empty() {
            say("ip", &format!("{} port {} {}", d.ip, d.port, d.protocol));
        }
        for host in &d.hosts {
            say(&super::escape(&host.provenance), &host.name);
        }
    }
    if let Some(p) = &event.process {
        say(
            "exe",
            p.executable
                .as_ref()
                .map(|e| e.path.as_str())
                .unwrap_or_default(),
        );
        say(
            "uid",
            &if p.uid == p.euid {
                p.uid.to_string()
            } else {
                format!("{}(euid {})", p.uid, p.euid)
            },
        );
        say("cwd", &p.cwd);
        say("cgroup", &p.cgroup);
        say("argv", &super::describe::command(Some(p)));
        let chain = super::describe::ancestry(p);
        say("parents", chain.trim_start_matches(" < "));
    }
    if let Some(t) = &event.truncation {
        let cut = [
            (t.argv, "argv"),
            (t.environment, "environment"),
            (t.payload, "payload"),
            (t.file, "file"),
        ];
        say(
            "truncated",
            &cut.iter()
                .filter(|c| c.0)
                .map(|c| c.1)
                .collect::<Vec<_>>()
                .join(","),
        );
    }
    for sentence in &event.coverage {
        say("coverage", sentence);
    }
    if let Some(g) = &event.gap {
        say("remedy", &g.remedy);
    }
    if !more.is_empty() {
        out.push_str(GAP.trim_end());
        style.paint(&mut out, Colour::Dim, &more);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_terminal_is_filled_and_never_overrun() {
        for width in 20..300 {
            let layout = Layout::new(Some(width));
            let total: usize =
                layout.widths.iter().map(|w| w + 2).sum::<usize>() + layout.last.unwrap();
            if width >= 90 {
                assert_eq!(total, width);
                assert!(layout.last.unwrap() >= WHERE[0], "{width}: {layout:?}");
            }
            let header = layout.header(&Style::PLAIN);
            assert!(header.width() >= 5);
        }
        assert_eq!(Layout::new(Some(300)).widths, Layout::new(None).widths);
    }
}
