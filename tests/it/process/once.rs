//! P5: what is delivered at most once is never started twice, whoever is killed when.

use std::collections::HashMap;
use std::time::Duration;

use punctual::{
    AttemptEnd, Client, Delivery, Outcome, Payload, Scheduler, TaskContext, TaskId, TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, Part, Place, Process, part, seed, spin, until_nothing_is_left};

const KILLS: usize = 30;
/// How many processes have the file open at once.
const PROCESSES: usize = 2;

#[derive(Serialize, Deserialize)]
struct Shot;

impl Payload for Shot {
    const KIND: &'static str = "shot";
    const DELIVERY: Delivery = Delivery::AtMostOnce;
}

#[test]
#[ignore = "a child process that is killed while it starts tasks at most once"]
fn child() {
    let Some(part) = Part::played() else { return };
    let takes_orders: bool = part.argument(0);
    let handler = part.clone();
    let scheduler = Scheduler::builder(&part.file)
        .workers(3)
        .handler_fn(move |_: Shot, cx: &TaskContext| {
            handler.started(cx);
            spin(Duration::from_micros(fastrand::u64(..2_000)));
            let outcome = match fastrand::u8(..8) {
                0 => Ok(Outcome::snooze(Duration::ZERO)),
                1 => Err("it is not tried again".into()),
                2 => cx.complete(|_| Ok(Outcome::done())),
                _ => Ok(Outcome::done()),
            };
            handler.ended(cx);
            outcome
        })
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    if !takes_orders {
        until_nothing_is_left(&scheduler);
        return;
    }
    part.die_with_parent();
    loop {
        let id = scheduler.schedule(Shot).expect("to schedule").id();
        let (first, count) = (uuid::Uuid::from(id).as_u128(), 1);
        part.say(&Line::Scheduled { first, count });
    }
}

#[derive(Default)]
struct History {
    acknowledged: Vec<TaskId>,
    starts: HashMap<TaskId, u32>,
    unfinished: usize,
}

impl History {
    /// Takes over what one process told until it was dead.
    fn add(&mut self, lines: &[Line]) {
        let mut open = 0;
        for line in lines {
            match line {
                Line::Scheduled { first, .. } => {
                    self.acknowledged.push(id(*first));
                }
                Line::Started { id, .. } => {
                    *self.starts.entry(*id).or_default() += 1;
                    open += 1;
                }
                Line::Ended { .. } => open -= 1,
                _ => {}
            }
        }
        self.unfinished += usize::from(open > 0);
    }
}

fn id(number: u128) -> TaskId {
    uuid::Uuid::from_u128(number).into()
}

fn start(place: &Place, takes_orders: bool) -> Process {
    Process::start(part!(child), &place.file(), &[&takes_orders])
}

#[test]
fn p5_a_task_delivered_at_most_once_is_never_started_twice() {
    let mut random = fastrand::Rng::with_seed(seed("once"));
    let place = Place::new();
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start(&place, true)).collect();
    let mut history = History::default();
    while history.unfinished < KILLS {
        let victim = processes.swap_remove(random.usize(..processes.len()));
        let mut lines = victim.read_until(|line| matches!(line, Line::Started { .. }));
        spin(Duration::from_micros(random.u64(..4_000)));
        lines.extend(victim.kill());
        history.add(&lines);
        processes.push(start(&place, true));
    }
    for process in processes {
        history.add(&process.kill());
    }
    let (status, lines) = start(&place, false).end();
    assert!(status.success(), "{status}");
    history.add(&lines);

    let client = Client::open(place.file()).expect("to open the file");
    let (mut interrupted, mut completed) = (0, 0);
    for id in &history.acknowledged {
        let task = client.get(*id).expect("to read").expect("it was stored");
        let starts = history.starts.get(id).copied().unwrap_or_default();
        assert!(task.state().is_final(), "{task:?}");
        match (task.state(), task.error()) {
            (TaskState::Completed, _) => {
                assert_eq!(starts, 1, "{task:?}");
                completed += 1;
            }
            (TaskState::Failed, Some("interrupted")) => {
                let attempts = client.history(*id).expect("its history");
                assert_eq!(attempts.len(), 1);
                assert_eq!(attempts[0].end(), AttemptEnd::Crashed);
                interrupted += 1;
            }
            (TaskState::Failed, Some(_)) => assert_eq!(starts, 1, "{task:?}"),
            other => panic!("{other:?}: {task:?}"),
        }
    }
    let twice = history.starts.iter().find(|(_, starts)| **starts > 1);
    assert_eq!(twice, None);
    eprintln!(
        "once: {} kills with a handler in hand; {} tasks, {completed} completed, {interrupted} interrupted",
        history.unfinished,
        history.acknowledged.len()
    );
    assert!(interrupted > 0 && completed > 0);
}
