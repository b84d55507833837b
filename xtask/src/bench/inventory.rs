//! `keytrail inventory` beside `find` on the same tree: most files are no text, some hold a credential.

use super::{
    Row,
    measure::MARK,
    stats::median,
    text::{Random, packaged, prose},
};
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
/// A tree with 10,000 credentials takes no longer, in seconds.
const LIMIT: f64 = 60.0;

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
    let took = median(&inventories).unwrap_or_default();
    println!(
        "{MARK}{}\tfound\t{}\t{took:.2}\t{:.2}\t{peak}",
        row.name(),
        tree.planted,
        median(&finds).unwrap_or_default(),
    );
    if took > LIMIT {
        bail!(
            "{} credentials were found in {took:.1} s: more than {LIMIT} s",
            tree.planted
        );
    }
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
                text: packaged()?,
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
            peak = peak.max(super::measure::status_kib(child.id(), "VmHWM:").unwrap_or(0));
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

impl Drop for Tree {
    fn drop(&mut self) {
        // The next row needs the room.
        let _ = fs::remove_dir_all(&self.top);
    }
}
