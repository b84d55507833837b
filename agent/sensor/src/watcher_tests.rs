use super::*;

fn answers_of(watcher: &Watcher, count: usize) -> Vec<Answer> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut answers = Vec::new();
    while answers.len() < count && Instant::now() < until {
        answers.extend(watcher.take());
        watcher.wait(Duration::from_millis(5));
    }
    answers
}

#[test]
fn who_does_not_come_back_is_given_up_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, "x").unwrap();
    let file = reach::open(&path).unwrap().id;
    let mut watcher = Watcher::new(None, None);
    watcher.watch(1, &path, file);
    let answers = answers_of(&watcher, 1);
    assert!(answers[0].error.is_none() && answers[0].found.is_some());
    // As if the thread had been at a file of another device for a while.
    let dead = FileId {
        ino: 7,
        dev: file.dev + 1,
        pad: 0,
    };
    let before = {
        let mut queue = watcher.shared.lock();
        queue.at = Some(At {
            since: Instant::now() - STUCK - PATIENCE,
            job: (Some(2), dead),
        });
        queue.generation
    };
    assert!(!watcher.goes_on(), "what takes long is not waited for");
    let answers = watcher.take();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].ask, 2);
    assert_eq!(
        answers[0].error.as_ref().unwrap().kind(),
        io::ErrorKind::TimedOut
    );
    assert_ne!(watcher.shared.lock().generation, before);
    // Nobody is sent there again, and everybody else is.
    watcher.watch(3, &path, dead);
    watcher.watch(4, &path, file);
    let answers = answers_of(&watcher, 2);
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| (answer.ask, answer.error.as_ref().map(io::Error::kind)))
        .collect();
    assert_eq!(kinds, [(3, Some(io::ErrorKind::TimedOut)), (4, None)]);
}

#[test]
fn the_program_that_listens_comes_once_for_many() {
    let watcher = Watcher::new(None, None);
    assert_eq!(watcher.listen(), None);
    watcher.shared.lock().listening = Listening::Wanted;
    assert_eq!(watcher.listen(), Some(Listen::Begin));
    watcher.listens(true);
    assert_eq!(watcher.listen(), None, "more may be asked for at once");
    watcher.shared.lock().listening =
        Listening::Since(Instant::now() - Duration::from_millis(1_100));
    assert_eq!(watcher.listen(), Some(Listen::End));
    watcher.listens(false);
    assert_eq!(watcher.listen(), None, "it is tried once");
}
