//! `keytrail doctor`: what is seen here, what is not, and what to do about it.

use super::args::{DoctorArgs, TableFormat};
use super::{exit, fail, host, privilege, status, watch};
use crate::config::Config;
use crate::engine::{EngineHandle, EngineOptions};
use crate::output::{Colour, Style, Table, escape, json};
use keytrail_export::{Address, ClientError, connect};
use keytrail_proto::v1::{GetStatusRequest, GetStatusResponse};
use std::io::{self, Write as _};

pub(super) fn run(args: &DoctorArgs, config: Config) -> u8 {
    let table = args.output == TableFormat::Table;
    let style = Style::of(io::stdout());
    if table {
        print(&facts(&style));
    }
    let (answer, origin) = match ask(&args.agent.address) {
        Ok(answer) => {
            let node = answer.node.clone().unwrap_or_default();
            let version = escape(&node.version).into_owned();
            (
                answer,
                format!(
                    "As the agent on {} (version {version}) sees it:",
                    args.agent.address
                ),
            )
        }
        Err(ClientError::NoAgent(_)) => match open(config) {
            Ok(answer) => (
                answer,
                "No agent is running; tried here and now:".to_owned(),
            ),
            Err((sentence, code)) => return fail(&sentence, code),
        },
        Err(e) => return fail(&e, watch::status_of(&e)),
    };
    if table {
        print(&format!("\n{origin}\n{}", status::render(&answer, &style)));
    } else {
        match json(&answer) {
            Ok(json) => print(&format!("{json}\n")),
            Err(e) => return fail(&e, exit::FAILED),
        }
    }
    match status::unserved(&answer) {
        missing if missing.is_empty() => exit::OK,
        missing => fail(
            &format_args!("no hook for {}", missing.join(", ")),
            exit::FAILED,
        ),
    }
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

fn ask(address: &Address) -> Result<GetStatusResponse, ClientError> {
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
        state_dir: None,
        config,
        record: None,
        follow_only: None,
        kernel_log: false,
    };
    let engine = EngineHandle::start(options, Box::new(|_| {}))
        .map_err(|e| (e.to_string(), exit::FAILED))?;
    let answer = engine.status();
    engine.stop();
    Ok(answer)
}
