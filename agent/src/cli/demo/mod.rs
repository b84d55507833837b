//! `keytrail demo`: a decoy credential is read, shown on a command line and sent over TLS, and keytrail sees it.

pub(super) mod decoy;
mod server;

use super::args::DemoArgs;
use super::follow::{Follow, FollowError, Followed, follow};
use super::spawn::{self, Held};
use super::{exit, fail, privilege};
use crate::config::Config;
use crate::output::{Format, Style, TraceEnd, Writer, escape};
use decoy::Decoy;
use server::{Bound, Server};
use std::ffi::OsString;
use std::io::{self, Write as _};

/// `$1` the decoy's file, `$2` the server's port. The token only ever is in the file and in these processes.
const CURL: &str = r#"cat "$1" >/dev/null
token=$(sed -n 's/^ *oauth_token: //p' "$1")
exec curl --disable --silent --insecure --ipv4 --noproxy '*' --max-time 4 --output /dev/null \
  --resolve "localhost:$2:127.0.0.1" --header "Authorization: Bearer $token" "https://localhost:$2/user""#;

const PYTHON: &str = r#"cat "$1" >/dev/null
exec python3 -c '
import re, ssl, sys, http.client
token = re.search(r"oauth_token: (\S+)", open(sys.argv[1]).read()).group(1)
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection("localhost", int(sys.argv[2]), timeout=4, context=context)
connection.request("GET", "/user", headers={"Authorization": "Bearer " + token})
connection.getresponse().read()
' "$1" "$2""#;

pub(super) fn run(args: &DemoArgs, mut config: Config) -> u8 {
    if let Some(sentence) = privilege::missing() {
        return fail(&sentence, exit::NOT_PERMITTED);
    }
    let Some((client, script)) = client() else {
        return fail(
            &"the demo needs curl (or python3) to make a TLS request: install curl",
            exit::FAILED,
        );
    };
    let decoy = match Decoy::plant() {
        Ok(decoy) => decoy,
        Err(e) => return fail(&format_args!("cannot plant the decoy: {e}"), exit::FAILED),
    };
    config.watch.push(decoy.glob());
    let listener = match Server::bind() {
        Ok(listener) => listener,
        Err(e) => {
            return fail(
                &format_args!("cannot start a TLS server on loopback: {e}"),
                exit::FAILED,
            );
        }
    };
    let command = command(script, &decoy, &listener);
    // Before the server's thread and the engine's: a fork is simplest while there is one thread.
    let held = match Held::spawn(&command) {
        Ok(held) => held,
        Err(e) => return fail(&e, exit::FAILED),
    };
    let server = match listener.start() {
        Ok(server) => server,
        Err(e) => return fail(&e, exit::FAILED),
    };
    say(
        args,
        &format!(
            "A made-up GitHub token was planted in {}. Now a shell script reads it and {client} sends it over TLS to a server \
         on loopback:\n",
            escape(&decoy.path().to_string_lossy())
        ),
    );
    let mut writer: Writer<Box<dyn io::Write + Send>> =
        Writer::new(Box::new(io::stdout()), args.output, Style::of(io::stdout()));
    if writer.header().is_err() {
        return exit::OK;
    }
    let followed = follow(Follow {
        held,
        config,
        record: None,
        sinks: vec![writer],
    });
    let served = server.stop();
    drop(decoy);
    let followed = match followed {
        Ok(followed) => followed,
        Err(FollowError::Spawn(e)) => return fail(&e, exit::FAILED),
        Err(e) => return fail(&e, exit::FAILED),
    };
    say(args, &summary(&followed));
    if let Some(sentence) = missed(client, served, &followed) {
        return fail(&sentence, exit::FAILED);
    }
    say(
        args,
        "The decoy is removed. Watch real ones with `keytrail agent --print`.\n",
    );
    exit::OK
}

/// The shell script with what it takes: the decoy and the server's port.
fn command(script: &str, decoy: &Decoy, listener: &Bound) -> Vec<OsString> {
    let shell = ["/bin/sh", "-c", script, "keytrail-demo"].map(OsString::from);
    let arguments = [decoy.path().into(), listener.port().to_string().into()];
    shell.into_iter().chain(arguments).collect()
}

fn summary(followed: &Followed) -> String {
    let end = TraceEnd {
        command: "the demo".into(),
        elapsed: followed.elapsed,
        outcome: followed.ended.to_string(),
        survivors: followed.survivors,
    };
    let style = Style::of(io::stdout());
    followed.summary.trace(&end, &followed.status, &style)
}

/// Who makes the request, and how.
fn client() -> Option<(&'static str, &'static str)> {
    let has = |program: &str| spawn::find(program.as_ref()).is_ok();
    match (has("curl"), has("python3")) {
        (true, _) => Some(("curl", CURL)),
        (false, true) => Some(("python3", PYTHON)),
        _ => None,
    }
}

/// What did not come where it should have.
fn missed(client: &str, served: usize, followed: &Followed) -> Option<String> {
    if served == 0 {
        return Some(format!(
            "{client} did not reach the server ({})",
            followed.ended
        ));
    }
    (!followed.summary.any_observed()).then(|| {
        format!(
            "the server got the token, but keytrail did not see it in {client}'s TLS writes: `keytrail doctor` says \
             which TLS libraries are covered and why others are not"
        )
    })
}

/// Words for people; programs only get the events.
fn say(args: &DemoArgs, text: &str) {
    let _ = match args.output {
        Format::Json => Ok(()),
        _ => io::stdout().write_all(text.as_bytes()),
    };
}
