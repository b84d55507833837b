//! `keytrail inventory` beside `find` on the same tree: most files are no text, some hold a credential.

use super::{here::MARK, stats::median};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Files in one directory.
const CROWD: u32 = 100;
/// One file in so many holds a credential.
const PLANTED: u32 = 20;

/// Measures over a tree of `files` files and prints the lines of results.
pub fn run(agent: &Path, work: &Path, files: u32, pairs: u32) -> Result<()> {
    cmd::step(format!("inventory: a tree of {files} files"));
    let tree = Tree::plant(&work.join("tree"), files)?;
    let state = work.join("inventory-state");
    let (mut finds, mut inventories, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    // Once for the page cache: all of them read the same.
    tree.read()?;
    for number in 0..pairs {
        cmd::step(format!("inventory: pair {}", number + 1));
        let first = number % 2 == 0;
        let mut find = if first { tree.find()? } else { Duration::ZERO };
        let (took, found, rss) = tree.inventory(agent, &state)?;
        if !first {
            find = tree.find()?;
        }
        let limit = 3 * find + tree.read()?;
        if found != u64::from(tree.planted) {
            bail!("{found} credentials found, {} planted", tree.planted);
        }
        peak = peak.max(rss);
        finds.push(find.as_secs_f64());
        limits.push(limit.as_secs_f64());
        inventories.push(took.as_secs_f64());
    }
    let per_file = |seconds: &[f64]| median(seconds).unwrap_or_default() * 1e9 / f64::from(files);
    for (subject, beside) in [
        ("find -type f -size -8M", &finds),
        ("3 times find, and reading all text (aim: 1)", &limits),
    ] {
        let mut ratios = String::new();
        for (with, without) in inventories.iter().zip(beside) {
            let comma = if ratios.is_empty() { "" } else { "," };
            write!(ratios, "{comma}{:.4}", with / without)?;
        }
        println!(
            "{MARK}inventory\t{subject}\t{:.1}\t{:.1}\t{ratios}\t-\t{files}",
            per_file(beside),
            per_file(&inventories),
        );
    }
    cmd::step(format!(
        "inventory: {} credentials found in {:.2} s, find {:.2} s, peak {} MiB resident",
        tree.planted,
        median(&inventories).unwrap_or_default(),
        median(&finds).unwrap_or_default(),
        peak / 1024
    ));
    Ok(())
}

/// Like a host: programs and their data, pictures, archives, compiled scripts, and three text files in twenty.
struct Tree {
    top: PathBuf,
    planted: u32,
}

impl Tree {
    fn plant(top: &Path, files: u32) -> Result<Self> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let text = prose(&mut random);
        let mut planted = 0;
        for number in 0..files {
            let (directory, below) = (number / CROWD, number / CROWD / CROWD);
            let dir = top.join(format!("part-{below}/folder-{directory}"));
            if number % CROWD == 0 {
                fs::create_dir_all(&dir)?;
            }
            let size = 4_096 + random.below(128 * 1024);
            match number % 20 {
                0..2 => {
                    let length = 2_000 + random.below(30_000) as usize;
                    let at = random.below((text.len() - length) as u64) as usize;
                    let mut file = File::create(dir.join(format!("module_{number}.txt")))?;
                    file.write_all(text.as_bytes().get(at..at + length).unwrap_or_default())?;
                }
                4 => {
                    let mut content = format!("name = service-{number}\nport = {}\n", 8000);
                    if number % PLANTED == 4 {
                        writeln!(content, "token = \"{}\"", random.github())?;
                        planted += 1;
                    }
                    fs::write(dir.join(format!("settings_{number}.txt")), content)?;
                }
                kind @ (2 | 3 | 5..19) => {
                    let head: &[u8] = match kind {
                        2..10 => b"\x7fELF\x02\x01\x01\0",
                        10..13 => b"\x89PNG\r\n\x1a\n",
                        13..15 => b"PK\x03\x04\x14\0",
                        _ => b"\xa7\r\r\n\0\0\0\0",
                    };
                    let file = File::create(dir.join(format!("data_{number}.bin")))?;
                    file.write_all_at(head, 0)?;
                    // Nobody reads beyond the head: a hole does.
                    file.set_len(size)?;
                }
                _ => {
                    File::create(dir.join(format!("empty_{number}")))?;
                }
            }
        }
        Ok(Self {
            top: top.to_owned(),
            planted,
        })
    }

    fn find(&self) -> Result<Duration> {
        timed(
            cmd::clean("find")
                .arg(&self.top)
                .args(["-type", "f", "-size", "-8M"]),
        )
    }

    /// What reading costs alone.
    fn read(&self) -> Result<Duration> {
        let mut list = cmd::clean("find")
            .arg(&self.top)
            .args(["-name", "*.txt", "-print0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let names = list.stdout.take().context("find has no output")?;
        let time = timed(cmd::clean("xargs").args(["-0", "cat"]).stdin(names));
        list.wait()?;
        time
    }

    /// Time, number of credentials found, and KiB of memory.
    fn inventory(&self, agent: &Path, state: &Path) -> Result<(Duration, u64, u64)> {
        let output = state.with_extension("json");
        let started = Instant::now();
        let mut child = cmd::clean(agent)
            .args(["inventory", "--no-processes", "-o", "json", "--root"])
            .arg(&self.top)
            .arg("--state-dir")
            .arg(state)
            .stdout(File::create(&output)?)
            .spawn()?;
        let mut peak = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            peak = peak.max(super::here::status_kib(child.id(), "VmHWM:").unwrap_or(0));
            thread::sleep(Duration::from_millis(20));
        };
        let took = started.elapsed();
        if !status.success() {
            bail!("keytrail inventory ended with {status}");
        }
        let text = fs::read_to_string(&output)?;
        // One fingerprint for each credential.
        let found = text.matches("\"fingerprint\": \"kt1:").count() as u64;
        Ok((took, found, peak))
    }
}

fn timed(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(started.elapsed())
}

/// The same tree every time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A classic token of GitHub with the right check digits, never issued.
    fn github(&mut self) -> String {
        const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut token: String = (0..30)
            .map(|_| char::from(BASE62[self.below(62) as usize]))
            .collect();
        let mut sum = crc32(token.as_bytes());
        let mut digits = ['0'; 6];
        for digit in digits.iter_mut().rev() {
            *digit = char::from(BASE62[(sum % 62) as usize]);
            sum /= 62;
        }
        token.extend(digits);
        format!("ghp_{token}")
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// A megabyte of what reads like a program with comments.
fn prose(random: &mut Random) -> String {
    const WORDS: [&str; 24] = [
        "return", "value", "index", "if", "the", "error", "buffer", "key", "self", "length",
        "token", "for", "map", "of", "to", "user", "path", "insert", "name", "let", "config",
        "match", "file", "secret",
    ];
    let mut text = String::new();
    while text.len() < 1 << 20 {
        for _ in 0..4 + random.below(8) {
            text += WORDS[random.below(WORDS.len() as u64) as usize];
            text.push(match random.below(8) {
                0 => '(',
                1 => '.',
                2 => '=',
                _ => ' ',
            });
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_digits_are_those_of_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(Random(1).github().len(), 40);
    }
}
