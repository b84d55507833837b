//! Lines of JSON in, lines of JSON out, on all cores, in order, in bounded memory.

use super::{ClassifyArgs, is_stdin};
use keytrail_secret::{Classifier, Fingerprinter, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use zeroize::Zeroizing;

/// Bytes of lines handed to a worker at once, and the longest line.
const BATCH: usize = 256 << 10;
const MAX_LINE: usize = 32 << 20;

#[derive(Deserialize)]
struct Question<'a> {
    #[serde(default)]
    id: Value,
    #[serde(default, borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a Value,
    credentials: Vec<Item>,
    /// Kinds that usually live at the question's path, whatever the text holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    usual_place_of: Vec<&'a str>,
}

#[derive(Serialize)]
struct Item {
    kind: String,
    identifier: String,
    confidence: f64,
    start: usize,
    end: usize,
    fingerprint: String,
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
}

#[derive(Serialize)]
struct Failure {
    id: Value,
    /// 1-based line of the input the question stands on.
    line: u64,
    error: String,
}

/// Stands for a line that is too long; the first byte occurs in no JSON.
const TOO_LONG: &[u8] = b"\0too long\n";

/// Whole lines of an input.
struct Batch {
    sequence: u64,
    /// 1-based number of its first line within its input.
    first_line: u64,
    lines: Zeroizing<Vec<u8>>,
}

/// True when every file could be read.
pub fn run(
    args: &ClassifyArgs,
    classifier: &Classifier,
    fingerprinter: &Fingerprinter,
) -> io::Result<bool> {
    let workers = match args.threads {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        n => n.min(256),
    };
    let in_flight = workers * 4;
    let (work, todo) = sync_channel::<Batch>(in_flight);
    let (done, results) = sync_channel::<(u64, Vec<u8>)>(in_flight);
    // A permit for every batch between reader and writer: one slow batch cannot pile up the ones behind it.
    let (permit, permits) = sync_channel::<()>(in_flight);
    for _ in 0..in_flight {
        let _ = permit.send(());
    }
    let todo = Mutex::new(todo);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (todo, done) = (&todo, done.clone());
            scope.spawn(move || {
                while let Some(batch) = next(todo) {
                    let mut out = Vec::with_capacity(4096);
                    let mut rest: &[u8] = &batch.lines;
                    let mut number = batch.first_line;
                    while !rest.is_empty() {
                        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                        let line = &rest[..end];
                        rest = rest.get(end + 1..).unwrap_or_default();
                        if !line.trim_ascii().is_empty() {
                            answer(
                                line,
                                number,
                                classifier,
                                fingerprinter,
                                args.min_confidence,
                                &mut out,
                            );
                        }
                        number += 1;
                    }
                    if done.send((batch.sequence, out)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let reader = scope.spawn(move || read_all(args, &work, &permits));
        let written = write_all(&results, &permit);
        // Without its receiver and permits the reader ends even when the output is gone.
        drop(results);
        drop(permit);
        let read = reader
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reader died")));
        written?;
        read
    })
}

fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().ok()?.recv().ok()
}

fn write_all(
    results: &Receiver<(u64, Vec<u8>)>,
    permit: &std::sync::mpsc::SyncSender<()>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut expected = 0;
    for (sequence, text) in results {
        waiting.insert(sequence, text);
        while let Some(text) = waiting.remove(&expected) {
            out.write_all(&text)?;
            expected += 1;
            let _ = permit.try_send(());
        }
        // A peer that waits for an answer before it asks again gets it.
        if waiting.is_empty() {
            out.flush()?;
        }
    }
    out.flush()
}

type Work = std::sync::mpsc::SyncSender<Batch>;

fn read_all(args: &ClassifyArgs, work: &Work, permits: &Receiver<()>) -> io::Result<bool> {
    let mut sequence = 0;
    let mut good = true;
    if args.files.is_empty() {
        feed(&mut io::stdin().lock(), work, permits, &mut sequence)?;
    }
    for path in &args.files {
        let result = if is_stdin(path) {
            feed(&mut io::stdin().lock(), work, permits, &mut sequence)
        } else {
            File::open(path).and_then(|f| {
                feed(
                    &mut BufReader::with_capacity(BATCH, f),
                    work,
                    permits,
                    &mut sequence,
                )
            })
        };
        if let Err(e) = result {
            eprintln!("keytrail classify: {}: {e}", path.display());
            good = false;
        }
    }
    Ok(good)
}

/// Cuts the input into batches of whole lines.
fn feed(
    input: &mut dyn BufRead,
    work: &Work,
    permits: &Receiver<()>,
    sequence: &mut u64,
) -> io::Result<()> {
    let mut first_line = 1;
    loop {
        let mut batch = Zeroizing::new(Vec::with_capacity(BATCH + BATCH / 4));
        // Whatever is there already is one batch; a lone line does not wait for more.
        loop {
            let before = batch.len();
            let n = input.take(MAX_LINE as u64).read_until(b'\n', &mut batch)?;
            if n == 0 {
                break;
            }
            if n == MAX_LINE && batch.last() != Some(&b'\n') {
                // Too long to be inspected: its rest is skipped, and it is answered as an error.
                skip_line(input)?;
                batch.truncate(before);
                batch.extend_from_slice(TOO_LONG);
            }
            if batch.len() >= BATCH
                || input
                    .fill_buf()
                    .is_ok_and(|rest| memchr::memchr(b'\n', rest).is_none())
                    && batch.len() >= BATCH / 8
            {
                break;
            }
            if buffered(input) == 0 {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let lines = memchr::memchr_iter(b'\n', &batch).count() as u64;
        let batch = Batch {
            sequence: *sequence,
            first_line,
            lines: batch,
        };
        if permits.recv().is_err() || work.send(batch).is_err() {
            return Ok(());
        }
        first_line += lines;
        *sequence += 1;
    }
}

fn buffered(input: &mut dyn BufRead) -> usize {
    input.fill_buf().map_or(0, <[u8]>::len)
}

fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let rest = input.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        match memchr::memchr(b'\n', rest) {
            Some(n) => {
                input.consume(n + 1);
                return Ok(());
            }
            None => {
                let n = rest.len();
                input.consume(n);
            }
        }
    }
}

/// Answers one line.
pub fn answer(
    line: &[u8],
    number: u64,
    classifier: &Classifier,
    fingerprinter: &Fingerprinter,
    min_confidence: f64,
    out: &mut Vec<u8>,
) {
    let question: Question<'_> = match serde_json::from_slice(line) {
        Ok(question) => question,
        Err(e) => {
            // The message of the parser names positions, never content.
            let reason = if TOO_LONG.starts_with(line) {
                format!("longer than {} MiB", MAX_LINE >> 20)
            } else if std::str::from_utf8(line).is_err() {
                "not UTF-8".to_string()
            } else if e.is_data() {
                "the line needs a string \"text\"".to_string()
            } else {
                format!("not JSON: column {}", e.column())
            };
            let _ = serde_json::to_writer(
                &mut *out,
                &Failure {
                    id: Value::Null,
                    line: number,
                    error: reason,
                },
            );
            out.push(b'\n');
            return;
        }
    };
    let origin = match &question.path {
        Some(path) if !path.is_empty() => Origin::File { path },
        _ => Origin::Text,
    };
    let found = classifier.classify(question.text.as_bytes(), origin);
    let credentials = found
        .iter()
        .filter(|f| f.confidence >= min_confidence)
        .map(|f| {
            let credential = f.credential(fingerprinter);
            let span = f.span();
            Item {
                kind: credential.kind,
                identifier: credential.identifier,
                confidence: credential.confidence,
                start: span.start,
                end: span.end,
                fingerprint: credential.fingerprint,
                rule: credential.rule,
                expires: credential.expires,
            }
        })
        .collect();
    let _ = serde_json::to_writer(
        &mut *out,
        &Answer {
            id: &question.id,
            credentials,
            usual_place_of: question
                .path
                .as_deref()
                .map(|path| classifier.kinds_of_path(path))
                .unwrap_or_default(),
        },
    );
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Value {
        let mut out = Vec::new();
        answer(
            line.as_bytes(),
            7,
            &Classifier::builtin(),
            &Fingerprinter::new(&[1; 32]),
            0.0,
            &mut out,
        );
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn answers_echo_the_id_and_count_in_bytes() {
        let token =
            keytrail_secret::rules::template::expand("ghp_{base62:30}{crc32_base62}", 5).unwrap();
        let text = format!("é TOKEN={token}");
        let answer = ask(&serde_json::json!({"id": {"n": 7}, "text": text}).to_string());
        assert_eq!(answer["id"]["n"], 7);
        let found = &answer["credentials"][0];
        assert_eq!(found["kind"], "github-token");
        let (start, end) = (
            found["start"].as_u64().unwrap() as usize,
            found["end"].as_u64().unwrap() as usize,
        );
        assert_eq!(&text[start..end], token);
        assert!(!answer.to_string().contains(&token));
    }

    #[test]
    fn a_bad_line_is_answered_and_nothing_of_it_is_repeated() {
        for line in [
            "not json hunter2",
            "{\"id\":1}",
            "{\"id\":1,\"text\":7}",
            "[]",
        ] {
            let answer = ask(line);
            assert_eq!(answer["id"], Value::Null);
            assert_eq!(answer["line"], 7);
            assert!(
                answer["error"].is_string() && !answer.to_string().contains("hunter2"),
                "{answer}"
            );
        }
    }
}
