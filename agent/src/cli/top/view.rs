//! The screen. Pure: what it draws depends on its arguments alone.

use super::state::{Order, Row, Rows, State};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Table};

/// Which table the keys act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    #[default]
    Credentials,
    Consumers,
    Destinations,
}

impl Focus {
    #[must_use]
    pub fn next(self) -> Focus {
        match self {
            Focus::Credentials => Focus::Consumers,
            Focus::Consumers => Focus::Destinations,
            Focus::Destinations => Focus::Credentials,
        }
    }

    fn index(self) -> usize {
        match self {
            Focus::Credentials => 0,
            Focus::Consumers => 1,
            Focus::Destinations => 2,
        }
    }
}

/// How the person at the keys wants it.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub focus: Focus,
    pub order: Order,
    /// First row shown of each table.
    pub scroll: [usize; 3],
    pub paused: bool,
    pub colour: bool,
    /// Whose events these are: host and agent.
    pub agent: String,
    /// Seconds since 1970.
    pub now: i64,
    pub clock: String,
    /// Why nothing comes any more.
    pub ended: Option<String>,
}

impl View {
    /// Moves the table in focus by rows.
    pub fn scroll_by(&mut self, rows: isize, state: &State) {
        let length = match self.focus {
            Focus::Credentials => state.credentials.len(),
            Focus::Consumers => state.consumers.len(),
            Focus::Destinations => state.destinations.len(),
        };
        let first = &mut self.scroll[self.focus.index()];
        *first = first
            .saturating_add_signed(rows)
            .min(length.saturating_sub(1));
    }

    fn style(&self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::default().add_modifier(modifier);
        if self.colour { style.fg(colour) } else { style }
    }
}

pub fn draw(frame: &mut Frame<'_>, state: &State, view: &View) {
    let [head, credentials, consumers, destinations, gaps, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(4),
        Constraint::Fill(4),
        Constraint::Fill(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    heading(frame, head, state, view);
    table(
        frame,
        credentials,
        Focus::Credentials,
        &state.credentials,
        view,
    );
    table(frame, consumers, Focus::Consumers, &state.consumers, view);
    table(
        frame,
        destinations,
        Focus::Destinations,
        &state.destinations,
        view,
    );
    frame.render_widget(Paragraph::new(unseen(state, view)), gaps);
    let words = format!(
        "q end  tab next table  up/down move  s order: {}  p {}",
        view.order.name(),
        if view.paused { "go on" } else { "hold still" }
    );
    let dim = view.style(Color::Reset, Modifier::DIM);
    frame.render_widget(Paragraph::new(Line::styled(words, dim)), keys);
}

fn heading(frame: &mut Frame<'_>, area: Rect, state: &State, view: &View) {
    let bold = view.style(Color::Reset, Modifier::BOLD);
    let mut first = vec![
        Span::styled("keytrail top", bold),
        Span::raw(format!("  {}  {}", view.agent, view.clock)),
    ];
    if view.paused {
        first.push(Span::styled("  HELD STILL", bold));
    }
    if let Some(why) = &view.ended {
        let red = view.style(Color::Red, Modifier::BOLD);
        first.push(Span::styled(format!("  ENDED: {why}"), red));
    }
    let lost = state.lost + state.missed;
    let alarm = if lost > 0 {
        view.style(Color::Red, Modifier::BOLD)
    } else {
        Style::default()
    };
    // What was lost first: it is the last to be cut.
    let second = vec![
        Span::styled(format!("{lost} records lost"), alarm),
        Span::raw(format!(
            ", {} events ({:.1} a second), {} credentials, {} consumers",
            state.events,
            state.rate(view.now),
            state.credentials.len(),
            state.consumers.len(),
        )),
    ];
    frame.render_widget(Paragraph::new(vec![first.into(), second.into()]), area);
}

fn table(frame: &mut Frame<'_>, area: Rect, focus: Focus, rows: &Rows, view: &View) {
    let (title, met, detail) = match focus {
        Focus::Credentials => ("CREDENTIAL", "USERS", "IDENTIFIER"),
        Focus::Consumers => ("CONSUMER", "CREDS", "WHO"),
        Focus::Destinations => ("DESTINATION", "CREDS", "FIRST SENT BY"),
    };
    let marker = if view.focus == focus { '>' } else { ' ' };
    let bold = view.style(Color::Reset, Modifier::BOLD);
    let header = Cells::new([
        format!("{marker}{title} ({})", rows.len()),
        "SENT".to_owned(),
        "HOLDER".to_owned(),
        "EVENTS".to_owned(),
        met.to_owned(),
        "LAST".to_owned(),
        detail.to_owned(),
    ])
    .style(bold);
    let first = view.scroll[focus.index()];
    let lines = rows
        .sorted(view.order)
        .into_iter()
        .skip(first)
        .take(usize::from(area.height))
        .map(|row| line(row, view));
    // Sent: its bytes were seen; holder: a holder sent something. The name has what it needs first; what is beside it
    // takes the rest.
    let name = match area.width {
        0..=100 => 36,
        101..=140 => 44,
        _ => 56,
    };
    let widths = [
        Constraint::Length(name),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Fill(1),
    ];
    frame.render_widget(
        Table::new(lines, widths).header(header).column_spacing(1),
        area,
    );
}

fn line<'a>(row: &'a Row, view: &View) -> Cells<'a> {
    let sent = match (row.observed, row.lineage) {
        (0, 0) => Style::default(),
        (0, _) => view.style(Color::Yellow, Modifier::empty()),
        _ => view.style(Color::Red, Modifier::BOLD),
    };
    Cells::new([
        Cell::from(format!(" {}", row.label)),
        Cell::from(number(row.observed)).style(sent),
        Cell::from(number(row.lineage)),
        Cell::from(row.events.to_string()),
        Cell::from(row.met()),
        Cell::from(ago(view.now - row.last)),
        Cell::from(row.detail.as_str()),
    ])
}

fn unseen(state: &State, view: &View) -> Line<'static> {
    if state.gaps.is_empty() {
        return Line::raw("not seen: nothing that is known of");
    }
    let mut gaps: Vec<_> = state.gaps.iter().collect();
    gaps.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = gaps
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let yellow = view.style(Color::Yellow, Modifier::empty());
    Line::styled(format!("not seen: {}", words.join(", ")), yellow)
}

fn number(n: u64) -> String {
    if n == 0 {
        "-".to_owned()
    } else {
        n.to_string()
    }
}

/// `12s`, `3m`, `5h`, `2d`.
fn ago(seconds: i64) -> String {
    match seconds {
        ..=0 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::{EventKind, EvidenceGrade, GapReason};
    use keytrail_proto::v1::{Credential, Destination, Event, Evidence, Gap, HostName, Process};
    use pbjson_types::Timestamp;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn state() -> State {
        let mut state = State::default();
        for n in 0..40u32 {
            let event = Event {
                kind: EventKind::CredentialSent.number(),
                time: Some(Timestamp {
                    seconds: 1_000 + i64::from(n),
                    nanos: 0,
                }),
                process: Some(Process {
                    pid: 2_128_200 + n,
                    key: format!("b:{n}"),
                    comm: "python3.11".into(),
                    ..Default::default()
                }),
                credential: Some(Credential {
                    kind: "aws-access-key".into(),
                    identifier: "AKIAXXXXXXXXXXXXXXXX".into(),
                    fingerprint: format!("kt1:9c1e{:026x}a2", n % 3),
                    ..Default::default()
                }),
                destination: Some(Destination {
                    ip: "10.0.0.9".into(),
                    port: 443,
                    hosts: vec![HostName {
                        name: "evil\u{1b}[31m.example".into(),
                        provenance: "sni".into(),
                    }],
                    ..Default::default()
                }),
                evidence: Some(Evidence {
                    grade: EvidenceGrade::Observed.number(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            state.add(&event);
        }
        state.gap(&Gap {
            reason: GapReason::RecordsLost.number(),
            count: 5,
            ..Default::default()
        });
        state
    }

    fn view() -> View {
        View {
            agent: "host1".into(),
            now: 1_045,
            clock: "21:03:04 CET".into(),
            ..View::default()
        }
    }

    fn screen(width: u16, height: u16, state: &State, view: &View) -> (Vec<String>, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let coloured = buffer
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        let lines = buffer
            .content()
            .chunks(usize::from(width))
            .map(|cells| cells.iter().map(|c| c.symbol()).collect::<String>())
            .map(|line| line.trim_end().to_owned())
            .collect();
        (lines, coloured)
    }

    #[test]
    fn at_80_columns_processes_and_credentials_are_whole() {
        let (lines, coloured) = screen(80, 24, &state(), &view());
        let all = lines.join("\n");
        assert_eq!(lines.len(), 24);
        for part in [
            "keytrail top  host1  21:03:04 CET",
            "40 events (",
            "5 records lost",
            ">CREDENTIAL (3)",
            "CONSUMER (40)",
            "DESTINATION (1)",
            "aws-access-key 9c1e..a2",
            "python3.11[2128239]",
            "10.0.0.9:443",
            "not seen: records_lost 5",
            "q end",
        ] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        assert!(!coloured, "without colour there is none\n{all}");
        assert!(!all.contains('\u{1b}'));
    }

    #[test]
    fn a_wide_screen_shows_more_and_colour_is_there_when_asked_for() {
        let mut view = view();
        view.colour = true;
        let (lines, coloured) = screen(200, 50, &state(), &view);
        assert!(coloured);
        let all = lines.join("\n");
        assert!(
            all.contains("AKIAXXXXXXXXXXXXXXXX") && all.contains("host root"),
            "{all}"
        );
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 5), (300, 2), (500, 100)] {
            screen(width, height, &state(), &view());
            screen(width, height, &State::default(), &view());
        }
    }

    #[test]
    fn scrolling_ends_with_the_rows_and_other_tables_stay() {
        let (state, mut view) = (state(), view());
        view.focus = Focus::Credentials.next();
        view.scroll_by(1000, &state);
        assert_eq!(view.scroll, [0, 39, 0]);
        view.scroll_by(-1000, &state);
        assert_eq!(view.scroll, [0, 0, 0]);
        view.scroll_by(1, &state);
        let (lines, _) = screen(80, 24, &state, &view);
        assert!(
            !lines.join("\n").contains("[2128239]"),
            "the newest is above"
        );
        assert!(lines.join("\n").contains("[2128238]"));
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (-5, "now"),
            (0, "now"),
            (59, "59s"),
            (60, "1m"),
            (7_200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }
}
