//! The environment and the arguments of a process, in a bounded time. The kernel reads both in the process's own memory
//! and holds its lock meanwhile: a process that waits for a file system of its own with the lock in hand keeps whoever
//! reads them waiting, for ever if it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use zeroize::Zeroizing;

use keytrail_model::Pid;

/// Most bytes taken of an environment or a command line.
const AREA_MAX: u64 = 512 * 1024;
/// Time a process has to let its memory be read: a thousand times what it takes on a busy machine.
const DEADLINE: Duration = Duration::from_millis(250);
/// Threads of this program that may wait for such processes; beyond it none is waited for.
const STUCK_MAX: usize = 24;
/// Processes of one user that are waited for: whoever has more of them is not asked any more, and takes nobody else's place.
const SHARE: usize = 6;
/// Processes that are not asked again.
const SILENT_MAX: usize = 1_024;

/// What is said of such a process.
pub const LATE: &str = "it does not let its memory be read in time";

/// Threads that wait for a process.
static STUCK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static READER: RefCell<Reader> = RefCell::default();
}

/// The bytes, and whether there were more.
pub type Area = (Zeroizing<Vec<u8>>, bool);

/// The environment (`environ`) or the arguments (`cmdline`) of a process of this user, at most 512 KiB of it.
///
/// # Errors
/// What open(2) and read(2) say; `TimedOut` when the process does not let itself be read, and has not done so before.
pub fn area(pid: Pid, uid: u32, name: &'static str) -> io::Result<Area> {
    let path = crate::procfs::path(pid.tgid, name);
    READER.with_borrow_mut(|reader| reader.read(pid, uid, move || read(&path)))
}

type Read = Box<dyn FnOnce() -> io::Result<Area> + Send>;

/// The thread that reads for one of this program's threads, while it comes back.
#[derive(Default)]
struct Reader {
    worker: Option<Worker>,
    /// Processes that did not answer, and whose they are.
    silent: VecDeque<(Pid, u32)>,
}

struct Worker {
    ask: Sender<Read>,
    answers: Receiver<io::Result<Area>>,
}

impl Reader {
    fn read(
        &mut self,
        pid: Pid,
        uid: u32,
        read: impl FnOnce() -> io::Result<Area> + Send + 'static,
    ) -> io::Result<Area> {
        let of_user = self.silent.iter().filter(|(_, of)| *of == uid).count();
        if of_user >= SHARE || self.silent.contains(&(pid, uid)) {
            return Err(late());
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start()?,
        };
        if worker.ask.send(Box::new(read)).is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        match worker.answers.recv_timeout(DEADLINE) {
            Ok(answer) => {
                self.worker = Some(worker);
                answer
            }
            Err(_) => {
                if self.silent.len() >= SILENT_MAX {
                    self.silent.pop_front();
                }
                self.silent.push_back((pid, uid));
                Err(late())
            }
        }
    }
}

impl Worker {
    /// A thread that ends when nobody asks it any more, or with the program if a process never lets it go.
    fn start() -> io::Result<Self> {
        if STUCK.load(Ordering::Relaxed) >= STUCK_MAX {
            return Err(late());
        }
        let (ask, asked) = mpsc::channel::<Read>();
        let (answer, answers) = mpsc::channel();
        std::thread::Builder::new()
            .name("areas".to_owned())
            .spawn(move || {
                for read in asked {
                    STUCK.fetch_add(1, Ordering::Relaxed);
                    let area = read();
                    STUCK.fetch_sub(1, Ordering::Relaxed);
                    if answer.send(area).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { ask, answers })
    }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, LATE)
}

fn read(path: &Path) -> io::Result<Area> {
    let file = File::open(path)?;
    // Room is taken once: a growing vector would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let mut page = Zeroizing::new([0u8; 8192]);
    let mut file = file.take(AREA_MAX + 1);
    loop {
        let n = file.read(&mut page[..])?;
        if n == 0 {
            break;
        }
        if bytes.len() + n > bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(bytes.capacity() * 4));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        bytes.extend_from_slice(&page[..n]);
    }
    let cut = bytes.len() as u64 > AREA_MAX;
    bytes.truncate(AREA_MAX as usize);
    Ok((bytes, cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn of(tgid: u32) -> Pid {
        Pid { tgid, start: 1 }
    }

    fn text(text: &str) -> io::Result<Area> {
        Ok((Zeroizing::new(text.as_bytes().to_vec()), false))
    }

    #[test]
    fn the_own_environment() {
        let me = crate::procfs::pid_of(std::process::id()).expect("own entry");
        let (env, cut) = area(me, 0, "environ").expect("own environment");
        assert!(!cut && env.windows(5).any(|w| w == b"PATH="));
        let gone = of(u32::MAX);
        assert_eq!(
            area(gone, 0, "environ").map_err(|e| e.kind()).unwrap_err(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn who_does_not_answer_is_waited_for_once() {
        let mut reader = Reader::default();
        let (go, wait) = mpsc::channel::<()>();
        let began = Instant::now();
        let answer = reader.read(of(7), 1, move || {
            let _ = wait.recv();
            text("late")
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= DEADLINE);
        // Others are read by another thread, and what the first one says at last is nobody's.
        let (bytes, _) = reader.read(of(8), 1, || text("soon")).expect("another one");
        assert_eq!(bytes.as_slice(), b"soon");
        let again = reader.read(of(7), 1, || panic!("it is asked again"));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(go);
        let (bytes, _) = reader
            .read(of(9), 1, || text("after"))
            .expect("another one");
        assert_eq!(bytes.as_slice(), b"after");
    }

    #[test]
    fn one_user_does_not_take_the_place_of_others() {
        let mut reader = Reader::default();
        for n in 0..SHARE as u32 {
            reader.silent.push_back((of(n), 1_000));
        }
        let asked = reader.read(of(50), 1_000, || panic!("it is asked"));
        assert_eq!(asked.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(reader.read(of(51), 1_001, || text("soon")).is_ok());
    }
}
