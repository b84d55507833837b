//! `keytrail inventory` beside `find` on the same tree: most files are no text, some hold a credential.

use super::{Row, here::MARK, stats::median};
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
/// Text of the machine's packages that is taken at most.
const PROSE: usize = 32 << 20;

/// Measures over a tree of `files` files and prints the lines of results.
pub fn run(row: Row, agent: &Path, work: &Path, files: u32, pairs: u32) -> Result<()> {
    cmd::step(format!("{}: a tree of {files} files", row.name()));
    let shape = Shape::of(row)?;
    let tree = Tree::plant(&work.join("tree"), files, &shape)?;
    cmd::step(format!(
        "{}: {:.1} GB, {:.2} GB of them text",
        row.name(),
        tree.size as f64 / 1e9,
        tree.text as f64 / 1e9
    ));
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
    // Beside finding, a dense tree is the work of noting what was found.
    let limit = if row == Row::Large {
        "3 times find, and reading all text (aim: 1)"
    } else {
        "3 times find, and reading all text"
    };
    for (subject, beside) in [("find -type f -size -8M", &finds), (limit, &limits)] {
        let mut ratios = String::new();
        for (with, without) in inventories.iter().zip(beside) {
            let comma = if ratios.is_empty() { "" } else { "," };
            write!(ratios, "{comma}{:.4}", with / without)?;
        }
        println!(
            "{MARK}{}\t{subject}\t{:.1}\t{:.1}\t{ratios}\t-\t-\t{files}",
            row.name(),
            per_file(beside),
            per_file(&inventories),
        );
    }
    cmd::step(format!(
        "{}: {} credentials found in {:.2} s, find {:.2} s, peak {} MiB resident",
        row.name(),
        tree.planted,
        median(&inventories).unwrap_or_default(),
        median(&finds).unwrap_or_default(),
        peak / 1024
    ));
    Ok(())
}

/// What distinguishes the trees.
struct Shape {
    /// One file in so many holds a credential.
    planted: u32,
    /// What text files are cut from.
    text: Vec<u8>,
}

impl Shape {
    fn of(row: Row) -> Result<Self> {
        Ok(if row == Row::Large {
            Shape {
                planted: 100,
                text: packaged_text()?,
            }
        } else {
            Shape {
                planted: 20,
                text: prose(&mut Random(0x9e37_79b9_7f4a_7c15)).into_bytes(),
            }
        })
    }
}

/// Like a host: programs and their data, pictures, archives, compiled scripts, and three text files in twenty.
struct Tree {
    top: PathBuf,
    planted: u32,
    /// Bytes of all files, and of those that are text.
    size: u64,
    text: u64,
}

impl Tree {
    fn plant(top: &Path, files: u32, shape: &Shape) -> Result<Self> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let text = &shape.text;
        let mut planted = 0;
        let (mut total, mut texts) = (0, 0);
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
                    file.write_all(text.get(at..at + length).unwrap_or_default())?;
                    texts += length as u64;
                }
                4 => {
                    let mut content = format!("name = service-{number}\nport = {}\n", 8000);
                    if number % shape.planted == 4 {
                        writeln!(content, "token = \"{}\"", random.github())?;
                        planted += 1;
                    }
                    texts += content.len() as u64;
                    fs::write(dir.join(format!("settings_{number}.txt")), content)?;
                }
                kind @ (2 | 3 | 5..19) => {
                    let head: &[u8] = match kind {
                        2..10 => b"\x7fELF\x02\x01\x01\0",
                        10..13 => b"\x89PNG\r\n\x1a\n",
                        13..15 => b"PK\x03\x04\x14\0",
                        15 => b"\x1f\x8b\x08\0\0\0\0\0",
                        16 => b"\xca\xfe\xba\xbe\0\0\0\x41",
                        // Compiled Python: known as no text by its bytes only.
                        _ => b"\xa7\r\r\n\0\0\0\0",
                    };
                    let file = File::create(dir.join(format!("data_{number}.bin")))?;
                    file.write_all_at(head, 0)?;
                    // Nobody reads beyond the head: a hole does.
                    file.set_len(size)?;
                    total += size;
                }
                _ => {
                    File::create(dir.join(format!("empty_{number}")))?;
                }
            }
        }
        Ok(Self {
            top: top.to_owned(),
            planted,
            size: total + texts,
            text: texts,
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
        // One entry for each credential. Packaged text may hold others, of test data.
        let found = text.matches("\"kind\": \"github-token\"").count() as u64;
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

impl Drop for Tree {
    fn drop(&mut self) {
        // The next row needs the room.
        let _ = fs::remove_dir_all(&self.top);
    }
}

/// Text as packages bring it: headers, programs, documentation, in equal parts as far as they are there.
fn packaged_text() -> Result<Vec<u8>> {
    const TREES: [&str; 5] = [
        "/usr/include",
        "/usr/lib/python3",
        "/usr/share/perl",
        "/usr/share/doc",
        "/usr/lib/python3.11",
    ];
    let mut text = Vec::new();
    for (done, tree) in TREES.iter().enumerate() {
        let list = cmd::output(cmd::clean("sh").args([
            "-c",
            "test ! -d \"$1\" || find \"$1\" -type f -size -256k | LC_ALL=C sort",
            "sh",
            tree,
        ]))?;
        for path in list.lines() {
            if text.len() >= PROSE / TREES.len() * (done + 1) {
                break;
            }
            // Compressed manuals and compiled code are among them.
            if let Ok(content) = fs::read_to_string(path)
                && !content.contains('\0')
            {
                text.extend_from_slice(content.as_bytes());
            }
        }
    }
    // A machine without packaged text (a booted guest): made-up text then.
    if text.len() < 1 << 20 {
        text = prose(&mut Random(0x9e37_79b9_7f4a_7c15)).into_bytes();
    }
    Ok(text)
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
