//! `keytrail used`: yes, no, or unknown because.

use super::args::{Shape, UsedArgs};
use super::{End, Outcome, document, history, line, print};
use crate::cli::classify::KEY_FILE;
use crate::cli::exit;
use crate::cli::filter_args::When;
use crate::output::{Style, history as render};
use keytrail_proto::v1::{
    CheckUseRequest, CheckUseResponse, GetHistoryStatusRequest, HiddenInterval, UseAct, Verdict,
};
use keytrail_secret::{Classifier, Fingerprinter, Origin};
use std::io::{self, Read as _};
use zeroize::Zeroizing;

/// No secret is longer than this.
const MOST_SECRET: u64 = 1 << 20;

/// Runs the command. A failure must not look like an answer.
pub(crate) fn run(args: &UsedArgs) -> u8 {
    let secret = if args.secret_stdin {
        match read_secret() {
            Ok(secret) => Some(secret),
            Err(e) => return crate::cli::fail(&e, exit::USAGE),
        }
    } else {
        None
    };
    let status = super::run(&args.agent.target(), async |channel| {
        let mut client = history(channel);
        let names = match secret {
            Some(secret) => {
                let key = client
                    .get_history_status(GetHistoryStatusRequest {})
                    .await?
                    .into_inner()
                    .fingerprint_key;
                names_of(args, &secret, &key)?
            }
            None => Names {
                credentials: args.credential.iter().cloned().collect(),
                recognised: true,
            },
        };
        let (from, to) = args.times.interval();
        let mut answers = Vec::new();
        for credential in names.credentials {
            let answer = client
                .check_use(CheckUseRequest {
                    credential,
                    from: from.map(When::timestamp),
                    // The same end for all.
                    to: to.map(When::timestamp),
                    by: args.by.clone().unwrap_or_default(),
                    to_host: args.to_host.clone().unwrap_or_default(),
                    acts: args.act.iter().map(|act| act.number()).collect(),
                    environment: args.environment.clone().unwrap_or_default(),
                })
                .await?
                .into_inner();
            answers.push(answer);
        }
        answer(args, together(answers, names.recognised))
    });
    // Within, a failure is 1 as everywhere; here that would mean no.
    match status {
        exit::FAILED => exit::UNANSWERED,
        NO => exit::NOT_USED,
        status => status,
    }
}

/// No, on the way to the exit status.
const NO: u8 = u8::MAX;

fn answer(args: &UsedArgs, answer: CheckUseResponse) -> Outcome {
    match args.output {
        Shape::Json => print(&line(&answer)?)?,
        Shape::Yaml => print(&document(&answer)?)?,
        Shape::Csv => print(&render::uses(&answer.uses, true).csv())?,
        Shape::Table | Shape::Wide => print(&render::verdict(
            &answer,
            args.output == Shape::Wide,
            &Style::of(io::stdout()),
        ))?,
    }
    Ok(match Verdict::try_from(answer.verdict) {
        Ok(Verdict::Yes) => exit::OK,
        Ok(Verdict::No) => NO,
        _ => exit::NOT_KNOWN,
    })
}

/// Fingerprints a secret may go by here.
struct Names {
    credentials: Vec<String>,
    /// A rule knows it by its form: wherever it lay, it was not passed over.
    recognised: bool,
}

/// Why there is no secret to ask about. Nothing of it is in here.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error("standard input cannot be read: {0}")]
    Input(io::Error),
    #[error("what is on standard input is too long for a secret")]
    TooLong,
    #[error("there is no secret on standard input")]
    Nothing,
}

fn read_secret() -> Result<Zeroizing<Vec<u8>>, SecretError> {
    // Never grown: a buffer that is left behind would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_SECRET as usize + 1));
    io::stdin()
        .lock()
        .take(MOST_SECRET + 1)
        .read_to_end(&mut bytes)
        .map_err(SecretError::Input)?;
    if bytes.len() as u64 > MOST_SECRET {
        return Err(SecretError::TooLong);
    }
    let end = bytes.trim_ascii_end().len();
    bytes.truncate(end);
    if bytes.is_empty() {
        return Err(SecretError::Nothing);
    }
    Ok(bytes)
}

fn names_of(args: &UsedArgs, secret: &[u8], key: &str) -> Result<Names, End> {
    let path = args
        .fingerprint_key_file
        .clone()
        .unwrap_or_else(|| args.state_dir.join(KEY_FILE));
    let unanswered = |sentence: String| End {
        status: exit::UNANSWERED,
        sentence,
    };
    let fingerprinter = Fingerprinter::load(&path).map_err(|e| {
        unanswered(format!(
            "the agent's fingerprint key {} cannot be read ({e}): ask as root, and name it with --state-dir or \
             --fingerprint-key-file",
            path.display()
        ))
    })?;
    if fingerprinter.key_name() != key {
        return Err(unanswered(format!(
            "{} is not the key of this agent: what it makes of a secret means nothing there",
            path.display()
        )));
    }
    let mut credentials = vec![fingerprinter.fingerprint(secret)];
    let classifier = Classifier::builtin();
    let found = classifier.classify(secret, Origin::Text);
    let mut recognised = false;
    for finding in &found {
        let Some(part) = finding.parts.first() else {
            continue;
        };
        recognised |= finding.specific();
        credentials.push(fingerprinter.fingerprint(&part.value));
    }
    credentials.sort();
    credentials.dedup();
    Ok(Names {
        credentials,
        recognised,
    })
}

/// One answer from those for all names: a yes of any is one.
fn together(answers: Vec<CheckUseResponse>, recognised: bool) -> CheckUseResponse {
    let mut all = CheckUseResponse {
        verdict: Verdict::No.into(),
        ..CheckUseResponse::default()
    };
    let rank = |verdict: i32| match Verdict::try_from(verdict) {
        Ok(Verdict::Yes) => 2,
        Ok(Verdict::No) => 0,
        _ => 1,
    };
    for answer in answers {
        if rank(answer.verdict) > rank(all.verdict) {
            all.verdict = answer.verdict;
        }
        all.from = all.from.or(answer.from);
        all.to = all.to.or(answer.to);
        all.uses.extend(answer.uses);
        for hidden in answer.hidden {
            if !all.hidden.contains(&hidden) {
                all.hidden.push(hidden);
            }
        }
        for of_act in answer.acts {
            match all.acts.iter_mut().find(|known| known.act == of_act.act) {
                Some(known) if rank(of_act.verdict) > rank(known.verdict) => *known = of_act,
                Some(_) => {}
                None => all.acts.push(of_act),
            }
        }
        all.credential = all.credential.or(answer.credential);
    }
    if !recognised && all.credential.is_none() {
        all.hidden.push(HiddenInterval {
            from: all.from,
            to: all.to,
            reason: "not_recognised".into(),
            detail: "no rule knows this secret by its form: where neither its name nor its place said what it is, it \
                     was passed over"
                .into(),
            acts: all.acts.iter().map(|of_act| of_act.act).collect(),
            remedy: "write a rule for it".into(),
            ..HiddenInterval::default()
        });
        for of_act in &mut all.acts {
            of_act.verdict = Verdict::Unknown.into();
        }
        all.verdict = Verdict::Unknown.into();
    }
    debug_assert!(
        all.acts
            .iter()
            .all(|of_act| UseAct::try_from(of_act.act).is_ok())
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{ActVerdict, Credential};

    fn answer(verdict: Verdict, known: bool) -> CheckUseResponse {
        CheckUseResponse {
            verdict: verdict.into(),
            acts: vec![ActVerdict {
                act: UseAct::Read.into(),
                verdict: verdict.into(),
            }],
            credential: known.then(Credential::default),
            ..CheckUseResponse::default()
        }
    }

    #[test]
    fn a_secret_of_several_names_is_denied_by_all_only() {
        let verdict = |answers, recognised| together(answers, recognised).verdict;
        let (yes, no, unknown) = (
            answer(Verdict::Yes, true),
            answer(Verdict::No, true),
            answer(Verdict::Unknown, true),
        );
        assert_eq!(
            verdict(vec![no.clone(), yes, unknown.clone()], true),
            i32::from(Verdict::Yes)
        );
        assert_eq!(
            verdict(vec![no.clone(), unknown], true),
            i32::from(Verdict::Unknown)
        );
        assert_eq!(verdict(vec![no.clone(), no], true), i32::from(Verdict::No));
        // What no rule knows by its form may have been passed over.
        let stranger = answer(Verdict::No, false);
        assert_eq!(
            verdict(vec![stranger.clone()], false),
            i32::from(Verdict::Unknown)
        );
        assert_eq!(verdict(vec![stranger], true), i32::from(Verdict::No));
    }
}
