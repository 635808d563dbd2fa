//! What all processes of the storm have told, and what the file must hold in the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use punctual::{AttemptEnd, Cancel, Client, Filter, Payload, Task, TaskId, TaskState};

use super::{Held, Quick, id, pad};
use crate::process::kit::{Line, Place};

/// Everything that was told, by all processes, in the order of its happening.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Tasks of calls that were made, and whether they were acknowledged.
    scheduled: BTreeMap<u128, (u32, bool)>,
    pub(super) cancels: HashMap<TaskId, Option<Cancel>>,
    pub(super) started: HashMap<(TaskId, u32), Start>,
}

#[derive(Debug)]
pub(super) struct Start {
    process: usize,
    ended: bool,
}

impl History {
    /// Learns what a process told, and checks what can be said at once.
    pub(super) fn learn(&mut self, process: usize, lines: &[Line]) {
        let mut started = HashSet::new();
        for line in lines {
            match *line {
                Line::Scheduling { first, count } => {
                    self.scheduled.insert(first, (count, false));
                }
                Line::Scheduled { first, count } => {
                    self.scheduled.insert(first, (count, true));
                }
                Line::Cancelling(id) => {
                    self.cancels.entry(id).or_insert(None);
                }
                Line::Answered(id, answer) => {
                    let known = self.cancels.insert(id, Some(answer)).flatten();
                    if known == Some(Cancel::Cancelled) {
                        assert_eq!(answer, Cancel::Finished(TaskState::Cancelled), "P8: {id}");
                    }
                }
                Line::Started {
                    id,
                    attempt,
                    due,
                    now,
                } => {
                    assert!(due <= now, "P2: {id} was due at {due} and started at {now}");
                    assert_ne!(
                        self.cancels.get(&id),
                        Some(&Some(Cancel::Cancelled)),
                        "P8: {id} was started after it was cancelled"
                    );
                    assert!(
                        started.insert(id),
                        "P7: {id} was started in one process while it ran there"
                    );
                    let before = self.started.insert(
                        (id, attempt),
                        Start {
                            process,
                            ended: false,
                        },
                    );
                    assert!(
                        before.is_none(),
                        "P7: attempt {attempt} of {id} was started twice"
                    );
                }
                Line::Ended { id, attempt } => {
                    let start = self
                        .started
                        .get_mut(&(id, attempt))
                        .expect("what ends was started");
                    assert_eq!(start.process, process);
                    start.ended = true;
                    started.remove(&id);
                }
                Line::Opening | Line::Opened => {}
                Line::Note(ref text) => assert_eq!(text, "done"),
            }
        }
    }

    fn tasks(&self) -> impl Iterator<Item = (TaskId, bool)> {
        self.scheduled
            .iter()
            .flat_map(|(&first, &(count, acknowledged))| {
                (first..first + u128::from(count)).map(move |number| (id(number), acknowledged))
            })
    }
}

/// What the file holds in the end.
#[derive(Debug, Default)]
pub(super) struct Counts {
    tasks: usize,
    completed: usize,
    cancelled: usize,
    crashes: u32,
    /// Attempts whose futures were dropped after their deadlines.
    pub(super) timed_out: usize,
    /// Crashes of attempts that had told nothing, or that had ended and were not settled.
    pub(super) untold: usize,
    unsettled: usize,
    /// Calls that were interrupted, and whether what they should have stored is there.
    pub(super) unanswered: usize,
    pub(super) whole: usize,
    pub(super) absent: usize,
}

pub(super) fn check_end(place: &Place, history: &History) -> Counts {
    let mut counts = Counts::default();
    let client = Client::open(place.file()).expect("to open the file");
    let mut stored = all(&client);
    for (&first, &(count, acknowledged)) in &history.scheduled {
        let there = (first..first + u128::from(count))
            .filter(|&number| stored.contains_key(&id(number)))
            .count();
        if acknowledged {
            assert_eq!(there, count as usize, "P1: {first:x} was acknowledged");
            continue;
        }
        counts.unanswered += 1;
        counts.whole += usize::from(there == count as usize);
        counts.absent += usize::from(there == 0);
    }
    for (id, _) in history.tasks() {
        if let Some(task) = stored.remove(&id) {
            check_task(&client, &task, history, &mut counts);
        }
    }
    assert!(
        stored.is_empty(),
        "P1: nobody scheduled {:?}",
        stored.keys().next()
    );
    drop(client);
    let integrity: String = place
        .look()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("to check the file");
    assert_eq!(integrity, "ok");
    for table in ["payload", "result", "progress", "tag", "attempt"] {
        let strays = place.number(&format!(
            "SELECT count(*) FROM punctual_{table} WHERE seq NOT IN (SELECT seq FROM punctual_task)"
        ));
        assert_eq!(
            strays, 0,
            "P14: rows of punctual_{table} that belong to no task"
        );
    }
    let alive = place.number("SELECT count(*) FROM punctual_instance WHERE ended_at IS NULL");
    assert_eq!(alive, 0, "P11: instances that are dead and not known to be");
    let files = place.lock_files();
    assert!(files.is_empty(), "P14: lock files of the dead: {files:?}");
    counts
}

fn all(client: &Client) -> HashMap<TaskId, Task> {
    let mut tasks = HashMap::new();
    let mut filter = Filter::all().limit(1_000);
    loop {
        let page = client.list(&filter).expect("to list");
        let next = page.next();
        tasks.extend(page.into_iter().map(|task| (task.id(), task)));
        match next {
            Some(next) => filter = filter.after(next),
            None => return tasks,
        }
    }
}

fn check_task(client: &Client, task: &Task, history: &History, counts: &mut Counts) {
    let id = task.id();
    match task.kind() {
        Quick::KIND => assert_eq!(
            task.payload::<Quick>().expect("its payload").pad,
            pad(id),
            "P1: {id}"
        ),
        _ => drop(task.payload::<Held>().expect("its payload")),
    }
    let allowed: &[TaskState] = match history.cancels.get(&id) {
        None => &[TaskState::Completed],
        Some(Some(Cancel::Cancelled)) => &[TaskState::Cancelled],
        Some(Some(Cancel::Finished(state))) => &[*state],
        Some(Some(Cancel::Requested) | None) => &[TaskState::Completed, TaskState::Cancelled],
    };
    assert!(
        allowed.contains(&task.state()),
        "P4, P8: {task:?}, not {allowed:?}: {:?}",
        client.history(id)
    );
    counts.tasks += 1;
    counts.completed += usize::from(task.state() == TaskState::Completed);
    counts.cancelled += usize::from(task.state() == TaskState::Cancelled);
    counts.crashes += task.crashes();
    let attempts = match (task.attempt(), task.crashes()) {
        (0 | 1, 0) => Vec::new(),
        _ => client.history(id).expect("its history"),
    };
    let that_ended = |end| {
        let attempts = attempts.iter().filter(move |attempt| attempt.end() == end);
        attempts.map(|attempt| attempt.number()).collect()
    };
    let crashed: HashSet<u32> = that_ended(AttemptEnd::Crashed);
    let timed_out: HashSet<u32> = that_ended(AttemptEnd::TimedOut);
    counts.timed_out += timed_out.len();
    assert_eq!(crashed.len(), task.crashes() as usize, "P4: {id}");
    for attempt in 1..=task.attempt() {
        let start = history.started.get(&(id, attempt));
        match (start, crashed.contains(&attempt)) {
            (Some(start), true) => counts.unsettled += usize::from(start.ended),
            (None, true) => counts.untold += 1,
            (start, false) => {
                let is_known = attempt == task.attempt() || timed_out.contains(&attempt);
                assert!(
                    start.is_some_and(|start| start.ended) && is_known,
                    "P4: attempt {attempt} of {task:?}, {start:?}, was neither the last nor a crash"
                );
            }
        }
    }
    let beyond = history.started.contains_key(&(id, task.attempt() + 1));
    assert!(!beyond, "P4: {task:?} was started once more than it knows");
    if task.state() == TaskState::Completed {
        assert!(
            !crashed.contains(&task.attempt()),
            "P4: {task:?} completed by an attempt that crashed"
        );
    }
}
