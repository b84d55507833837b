//! `keytrail doctor`: what is seen here, what is not, and what to do about it.

use super::args::DoctorArgs;
use super::verdict::Verdict;
use super::{exit, fail, host, privilege, status};
use crate::config::Config;
use crate::engine::{EngineHandle, EngineOptions};
use crate::output::{Colour, Rows, Style, Table, document, escape, json};
use keytrail_export::{ClientError, Target, connect};
use keytrail_proto::v1::{GetStatusRequest, GetStatusResponse};
use std::io::{self, Write as _};

/// As CSV: which signal uses which hook.
const SIGNALS: Rows = Rows {
    list: "signals",
    columns: &["signal", "hook", "tier", "selfTest", "note", "refused"],
};

pub(super) fn run(args: &DoctorArgs, config: Config) -> u8 {
    let table = args.output.style(io::stdout());
    let address = &args.agent.target();
    let (answer, absent) = match ask(address) {
        Ok(answer) => (answer, None),
        Err(ClientError::NoAgent(Target::Unix(_))) => match open(config) {
            Ok(answer) => (answer, Some(address)),
            Err((sentence, code)) => {
                if let Some(style) = &table {
                    print(&format!(
                        "NOT WELL: no agent answers on {address}, and nothing can be tried here and now.\n\n{}",
                        facts(style)
                    ));
                }
                return fail(&sentence, code);
            }
        },
        Err(e) => return fail(&e, exit::status_of(&e)),
    };
    let verdict = match Verdict::of(&answer, absent) {
        verdict if args.strict => verdict.strict(),
        verdict => verdict,
    };
    if let Some(style) = &table {
        let origin = match (&answer.node, absent) {
            (Some(node), None) => format!(
                "As the agent on {address} (version {}) sees it:",
                escape(&node.version)
            ),
            _ => "Tried here and now:".to_owned(),
        };
        let mut first = String::new();
        let colour = if verdict.problems.is_empty() {
            Colour::Green
        } else {
            Colour::Red
        };
        style.paint(&mut first, colour, &verdict.line());
        // Of another host nothing can be found out from here.
        let facts = match address.is_local() {
            true => facts(style) + "\n",
            false => String::new(),
        };
        print(&format!(
            "{first}\n\n{facts}{origin}\n{}",
            status::render(&answer, style)
        ));
    } else {
        let written = json(&answer)
            .and_then(|text| serde_json::from_str(&text))
            .map_err(io::Error::other)
            .and_then(|value| document(&value, args.output.format(), SIGNALS));
        match written {
            Ok(text) => print(&text.unwrap_or_default()),
            Err(e) => return fail(&e, exit::FAILED),
        }
        for problem in &verdict.problems {
            fail(problem, verdict.status);
        }
    }
    verdict.status
}

fn print(text: &str) {
    // A reader that went away (`| head`) is no reason to complain.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn facts(style: &Style) -> String {
    let mut table = Table::new(&["HOST", "", ""]);
    for fact in host::facts() {
        let colour = if fact.note.is_empty() {
            Colour::Plain
        } else {
            Colour::Yellow
        };
        table.row([
            (fact.name, Colour::Plain),
            (fact.value.as_str(), colour),
            (fact.note.as_str(), colour),
        ]);
    }
    table.render(style)
}

fn ask(address: &Target) -> Result<GetStatusResponse, ClientError> {
    let other = |message: String| ClientError::Other {
        address: address.clone(),
        message,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| other(e.to_string()))?;
    runtime.block_on(async {
        let mut client = connect(address).await?;
        let answer = client
            .get_status(GetStatusRequest {})
            .await
            .map_err(|e| other(e.message().to_owned()))?;
        Ok(answer.into_inner())
    })
}

/// Opens the sensors, looks, and closes them again.
fn open(config: Config) -> Result<GetStatusResponse, (String, u8)> {
    if let Some(sentence) = privilege::missing() {
        return Err((sentence, exit::NOT_PERMITTED));
    }
    let options = EngineOptions {
        can_exercise: false,
        state_dir: None,
        config,
        record: None,
        follow_only: None,
        kernel_log: false,
        config_file: None,
        leave_probes: true,
    };
    let engine = EngineHandle::start(options, Box::new(|_| {}))
        .map_err(|e| (e.to_string(), exit::FAILED))?;
    let answer = engine.asker().status();
    engine.stop();
    Ok(answer)
}
