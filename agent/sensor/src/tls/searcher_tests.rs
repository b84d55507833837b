use super::*;
use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

fn all(searcher: &Searcher) -> Vec<News> {
    let mut news = Vec::new();
    loop {
        let busy = searcher.is_busy();
        news.extend(searcher.take(usize::MAX));
        if !busy {
            return news;
        }
        searcher.wait(Duration::from_millis(20));
    }
}

#[test]
fn what_is_asked_is_answered_and_then_it_rests() {
    let searcher = Searcher::start(false).unwrap();
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it answers, all its libraries are mapped: until then the second look may find another one.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    searcher.libraries(child.id());
    searcher.libraries(child.id());
    let news = all(&searcher);
    let reported = |news: &News| matches!(news, News::Process { pid, .. } if *pid == child.id());
    assert_eq!(news.iter().filter(|news| reported(news)).count(), 1);
    assert!(!searcher.is_busy());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_finds_no_room_is_read_again_by_a_scan() {
    let shared = Shared {
        queue: Mutex::default(),
        arrived: Condvar::new(),
        taken: Condvar::new(),
        ready: eventfd(0, EventfdFlags::NONBLOCK).unwrap(),
    };
    for pid in 0..QUEUE as u32 {
        shared.push(Urgent::Libraries(pid));
    }
    assert!(!shared.lock().scan);
    shared.push(Urgent::Libraries(u32::MAX));
    let queue = shared.lock();
    assert_eq!(queue.urgent.len(), QUEUE);
    assert!(queue.scan && queue.whole);
}

#[test]
fn a_thread_that_does_not_come_back_is_replaced_and_what_it_was_at_is_reported() {
    let mut searcher = Searcher::start(false).unwrap();
    all(&searcher);
    let subject = Subject::File("/mnt/dead/libssl.so.3".into());
    // As if the thread were in there for long: it takes nothing any more.
    let old = searcher.shared.lock().generation;
    searcher.shared.lock().at = Some((Instant::now() - STUCK, subject.clone()));
    assert!(searcher.replace(std::iter::empty()));
    assert_ne!(searcher.shared.lock().generation, old);
    assert!(searcher.avoid.contains(&subject));
    let stuck = searcher.stuck();
    assert!(
        stuck.len() == 1
            && stuck[0].path == "/mnt/dead/libssl.so.3"
            && !stuck[0].covered
            && stuck[0].reason == "its file system does not answer",
        "{stuck:?}"
    );
    // Another one answers in its place.
    assert!(!searcher.replace(std::iter::empty()));
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    searcher.libraries(child.id());
    let news = all(&searcher);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        news.iter()
            .any(|news| matches!(news, News::Process { pid, .. } if *pid == child.id())),
        "{news:?}"
    );
}

/// What nobody runs yet is inspected when nothing else is asked, until there is enough of it.
#[test]
fn what_nobody_runs_yet_is_inspected() {
    let searcher = Searcher::start(false).unwrap();
    all(&searcher);
    let offer = |name: &str| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        searcher.offer(Found {
            file,
            path: name.into(),
            named: None,
        });
    };
    offer("/srv/program");
    let mut found = false;
    for _ in 0..500 {
        found |= searcher
            .take(usize::MAX)
            .iter()
            .any(|news| matches!(news, News::File(file) if file.path.ends_with("program")));
        if found {
            break;
        }
        searcher.wait(Duration::from_millis(20));
    }
    assert!(found);
    searcher.end_ahead();
    offer("/srv/another");
    assert!(searcher.shared.lock().ahead.is_empty());
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(!searcher.shared.push_ahead(Found {
        file,
        path: "/srv/third".into(),
        named: None,
    }));
}
