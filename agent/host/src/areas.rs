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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::{Zeroize as _, Zeroizing};

use keytrail_model::Pid;

/// Most bytes taken of an environment or a command line.
const AREA_MAX: usize = 512 * 1024;
/// Bytes read at a time: the kernel copies a page at a time (fs/proc/base.c), and the smallest there are have as many.
const PAGE: usize = 4096;
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
    READER.with_borrow_mut(|reader| reader.read(pid, uid, move |slot| read(&path, slot)))
}

/// Ends the thread that reads for this one, if it has one, until something is asked again.
pub fn rest() {
    READER.take();
}

/// Reads into the slot; whether there was more.
type Read = Box<dyn FnOnce(&Slot) -> io::Result<bool> + Send>;

/// What was read so far. It is the asker's: whatever becomes of the thread, the bytes go when they are given up.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Zeroizing<Vec<u8>>>>>);

impl Slot {
    fn new() -> Self {
        // Room is taken once: a growing vector would leave copies behind.
        Self(Arc::new(Mutex::new(Some(room(16 * 1024)))))
    }

    /// Adds bytes, unless nobody waits for them any more.
    fn add(&self, more: &[u8]) -> io::Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = slot.as_mut().ok_or_else(late)?;
        if bytes.len() + more.len() > bytes.capacity() {
            let mut larger = room((bytes.len() + more.len()) * 4);
            larger.extend_from_slice(bytes);
            *bytes = larger;
        }
        bytes.extend_from_slice(more);
        Ok(())
    }

    /// Nothing is added after that.
    fn take(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn room(bytes: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(bytes))
}

/// The thread that reads for one of this program's threads, while it comes back.
#[derive(Default)]
struct Reader {
    worker: Option<Worker>,
    /// Processes that did not answer, and whose they are.
    silent: VecDeque<(Pid, u32)>,
}

struct Worker {
    ask: Sender<(Read, Slot)>,
    answers: Receiver<io::Result<bool>>,
}

impl Reader {
    fn read(
        &mut self,
        pid: Pid,
        uid: u32,
        read: impl FnOnce(&Slot) -> io::Result<bool> + Send + 'static,
    ) -> io::Result<Area> {
        let of_user = self.silent.iter().filter(|(_, of)| *of == uid).count();
        if of_user >= SHARE || self.silent.contains(&(pid, uid)) {
            return Err(late());
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start()?,
        };
        let slot = Slot::new();
        if worker.ask.send((Box::new(read), slot.clone())).is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let answer = worker.answers.recv_timeout(DEADLINE);
        let bytes = slot.take().ok_or_else(late)?;
        match answer {
            Ok(answer) => {
                self.worker = Some(worker);
                answer.map(|cut| (bytes, cut))
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
        let (ask, asked) = mpsc::channel::<(Read, Slot)>();
        let (answer, answers) = mpsc::channel();
        std::thread::Builder::new()
            .name("areas".to_owned())
            .spawn(move || {
                for (read, slot) in asked {
                    STUCK.fetch_add(1, Ordering::Relaxed);
                    let cut = read(&slot);
                    STUCK.fetch_sub(1, Ordering::Relaxed);
                    drop(slot);
                    // It may be asked nothing more, and wait for ever.
                    keytrail_model::scrub_stack();
                    if answer.send(cut).is_err() {
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

fn read(path: &Path, slot: &Slot) -> io::Result<bool> {
    let mut file = File::open(path)?;
    // As much as the kernel copies at a time: no call has bytes in hand when the next page keeps it waiting.
    let mut page = Zeroizing::new([0u8; PAGE]);
    let mut left = AREA_MAX;
    loop {
        let n = file.read(&mut page[..])?;
        if n == 0 {
            return Ok(false);
        }
        let taken = n.min(left);
        slot.add(&page[..taken])?;
        // The next read may not come back.
        page[..n].zeroize();
        if taken < n {
            return Ok(true);
        }
        left -= taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn of(tgid: u32) -> Pid {
        Pid { tgid, start: 1 }
    }

    fn text(slot: &Slot, text: &str) -> io::Result<bool> {
        slot.add(text.as_bytes()).map(|()| false)
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
        let (said, heard) = mpsc::channel();
        let answer = reader.read(of(7), 1, move |slot| {
            text(slot, "half of it")?;
            let _ = wait.recv();
            let rest = text(slot, "late");
            let _ = said.send((slot.clone(), rest.is_err()));
            rest
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() >= DEADLINE);
        // Others are read by another thread, and what the first one says at last is nobody's.
        let (bytes, _) = reader
            .read(of(8), 1, |slot| text(slot, "soon"))
            .expect("another one");
        assert_eq!(bytes.as_slice(), b"soon");
        let again = reader.read(of(7), 1, |_| panic!("it is asked again"));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(go);
        // What it had read went when it was given up, and nothing is added.
        let (slot, refused) = heard.recv().expect("its end");
        assert!(refused && slot.take().is_none());
        let (bytes, _) = reader
            .read(of(9), 1, |slot| text(slot, "after"))
            .expect("another one");
        assert_eq!(bytes.as_slice(), b"after");
    }

    #[test]
    fn one_user_does_not_take_the_place_of_others() {
        let mut reader = Reader::default();
        for n in 0..SHARE as u32 {
            reader.silent.push_back((of(n), 1_000));
        }
        let asked = reader.read(of(50), 1_000, |_| panic!("it is asked"));
        assert_eq!(asked.unwrap_err().kind(), ErrorKind::TimedOut);
        let other = reader.read(of(51), 1_001, |slot| text(slot, "soon"));
        assert!(other.is_ok());
    }
}
