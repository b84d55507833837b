use super::*;
use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

#[derive(Default)]
struct Heard {
    news: Vec<News>,
    subjects: Vec<Subject>,
}

impl Listener for Heard {
    fn about(&mut self, subject: &Subject) -> bool {
        self.subjects.push(subject.clone());
        true
    }

    fn report(&mut self, news: News) -> bool {
        self.news.push(news);
        true
    }
}

fn cpu() -> Duration {
    Duration::from_nanos(keytrail_host::clock::thread_ns())
}

fn scan(search: &mut Search, heard: &mut Heard) {
    search.begin_scan(false, heard);
    while search.go_on(heard) {}
}

#[test]
fn scans_are_quick_and_look_into_a_file_once() {
    let (mut search, mut heard) = (Search::default(), Heard::default());
    let before = cpu();
    scan(&mut search, &mut heard);
    let first = cpu() - before;
    let inspected = |heard: &Heard| {
        let mut keys: Vec<FileKey> = heard
            .news
            .iter()
            .filter_map(|news| match news {
                // What was not done in its time is tried again.
                News::File(found) => {
                    let late = matches!(found.contents, Err(ElfError::Late));
                    (!late).then_some(found.key)
                }
                _ => None,
            })
            .collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all, "a file was inspected twice");
        all
    };
    inspected(&heard);
    let mut quickest = Duration::MAX;
    for _ in 0..8 {
        let before = cpu();
        scan(&mut search, &mut heard);
        quickest = quickest.min(cpu() - before);
    }
    eprintln!(
        "first scan: {first:?}; later ones {quickest:?}, {} processes, {} files",
        search.processes.len(),
        inspected(&heard)
    );
    assert!(first < Duration::from_secs(3));
    // With everything known, a process costs two look-ups.
    assert!(quickest < Duration::from_micros(200 * (search.processes.len() as u64 + 50)));
}

#[test]
fn a_process_is_reported_when_it_comes_changes_and_goes() {
    let (mut search, mut heard) = (Search::default(), Heard::default());
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    // Once it answers, all its libraries are mapped: until then another look finds another one.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let of = |heard: &mut Heard| -> Vec<News> {
        std::mem::take(&mut heard.news)
            .into_iter()
            .filter(|news| match news {
                News::Process { pid: other, .. } | News::Ended(other) => *other == pid,
                _ => false,
            })
            .collect()
    };
    search.libraries(pid, &mut heard);
    assert!(matches!(of(&mut heard)[..], [News::Process { .. }]));
    search.libraries(pid, &mut heard);
    assert!(of(&mut heard).is_empty(), "nothing is new");
    child.kill().unwrap();
    child.wait().unwrap();
    search.libraries(pid, &mut heard);
    assert!(matches!(of(&mut heard)[..], [News::Ended(_)]));
}

#[test]
fn what_nobody_comes_back_from_is_left_alone() {
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    let pid = child.id();
    let avoid = HashSet::from([Subject::Process(pid), Subject::Directories]);
    let mut search = Search::new(false, std::iter::empty(), avoid);
    let mut heard = Heard::default();
    search.libraries(pid, &mut heard);
    search.program(pid, &mut heard);
    search.begin_scan(false, &mut heard);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(heard.news.is_empty() && heard.subjects.is_empty());
}

#[test]
fn what_was_known_before_is_not_inspected_again() {
    let exe = std::env::current_exe().unwrap();
    let file = File::open(&exe).unwrap();
    let key = FileKey::of(&file).unwrap();
    let found = || Found {
        file: File::open(&exe).unwrap(),
        path: exe.clone(),
        named: None,
    };
    let mut heard = Heard::default();
    let known = std::iter::once((key, exe.clone()));
    Search::new(false, known, HashSet::new()).package(found(), &mut heard);
    assert!(heard.news.is_empty());
    Search::default().package(found(), &mut heard);
    assert!(matches!(&heard.news[..], [News::File(of)] if of.key == key));
}

#[test]
fn files_nobody_maps_are_looked_for_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let count = PATHS_EVERY * 3;
    let known: Vec<(FileKey, PathBuf)> = (0..count)
        .map(|n| {
            let path = dir.path().join(n.to_string());
            std::fs::write(&path, "x").unwrap();
            (FileKey::at(&path).unwrap(), path)
        })
        .collect();
    let mut search = Search::new(false, known.into_iter(), HashSet::new());
    let mut heard = Heard::default();
    let looked = |heard: &mut Heard| {
        let subjects = std::mem::take(&mut heard.subjects);
        let of_dir = |subject: &&Subject| matches!(subject, Subject::File(path) if path.starts_with(dir.path()));
        subjects.iter().filter(of_dir).count() as u64
    };
    let mut all = 0;
    for _ in 0..PATHS_EVERY {
        search.scans += 1;
        search.forget(&mut heard);
        let now = looked(&mut heard);
        assert_eq!(now, 3);
        all += now;
    }
    assert_eq!(all, count);
    // One that is gone is let go all the same.
    std::fs::remove_file(dir.path().join("7")).unwrap();
    for _ in 0..=PATHS_EVERY {
        search.scans += 1;
        search.forget(&mut heard);
    }
    let gone = heard
        .news
        .iter()
        .filter(|news| matches!(news, News::Gone(_)));
    assert_eq!(gone.count(), 1);
}
