//! P10: whoever is killed when, each slot makes exactly one task.

use std::collections::HashMap;
use std::time::Duration;

use punctual::chrono::{DateTime, TimeDelta, Utc};
use punctual::{
    Client, Filter, Missed, Outcome, Overlap, Payload, Recurrence, Scheduler, SlotFate, TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{
    Line, Part, Place, Process, Since, eventually, part, seed, spin, until_nothing_is_left,
    wall_clock,
};

/// How many recurrences have a slot each second.
const RECURRENCES: usize = 200;
const PROCESSES: usize = 3;
const STORM: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Beat;

impl Payload for Beat {
    const KIND: &'static str = "beat";
}

#[test]
#[ignore = "a child process that is killed while it makes and runs the tasks of recurrences"]
fn child() {
    let Some(part) = Part::played() else { return };
    let lives_on: bool = part.argument(0);
    let scheduler = Scheduler::builder(&part.file)
        .workers(2)
        .handler_fn(|_: Beat, cx| match cx.slot() {
            Some(_) => Ok(Outcome::done()),
            None => Err("it has no slot".into()),
        })
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    if lives_on {
        part.die_with_parent();
        eventually("it is killed", || None::<()>);
    }
    until_nothing_is_left(&scheduler);
}

fn start(place: &Place, lives_on: bool) -> Process {
    let process = Process::start(part!(child), &place.file(), &[&lives_on]);
    assert!(matches!(process.line(), Line::Opened));
    process
}

fn name(number: usize) -> String {
    format!("beat {number}")
}

#[test]
fn p10_each_slot_makes_exactly_one_task_whoever_is_killed() {
    let mut random = fastrand::Rng::with_seed(seed("recurrences"));
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let began_at = DateTime::from_timestamp_micros(wall_clock()).expect("it is now");
    client
        .transaction(|tx| {
            for number in 0..RECURRENCES {
                let beat = Recurrence::new(name(number), Beat)
                    .every(Duration::from_secs(1))?
                    .missed(Missed::All { max: 1_000 })
                    .overlap(Overlap::Allow);
                tx.recur(beat)?;
            }
            Ok::<_, punctual::Error>(())
        })
        .expect("to store the recurrences");
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start(&place, true)).collect();
    let (storm, mut kills) = (Since::now(), 0);
    while storm.elapsed() < STORM {
        spin(Duration::from_micros(random.u64(..300_000)));
        let victim = processes.swap_remove(random.usize(..processes.len()));
        victim.kill();
        kills += 1;
        processes.push(start(&place, true));
    }
    for process in processes {
        process.kill();
    }
    for number in 0..RECURRENCES {
        client.recurrences().pause(&name(number)).expect("to pause");
    }
    let (status, _) = start(&place, false).end();
    assert!(status.success(), "{status}");

    let mut made: HashMap<(String, DateTime<Utc>), u32> = HashMap::new();
    let mut filter = Filter::all().limit(1_000);
    loop {
        let page = client.list(&filter).expect("to list");
        for task in page.tasks() {
            assert_eq!(task.state(), TaskState::Completed, "{task:?}");
            let recurrence = task.recurrence().expect("a recurrence made it");
            let slot = task.slot().expect("for a slot");
            *made.entry((recurrence.to_owned(), slot)).or_default() += 1;
        }
        match page.next() {
            Some(next) => filter = filter.after(next),
            None => break,
        }
    }
    assert!(made.values().all(|count| *count == 1));
    let mut slots = 0;
    for number in 0..RECURRENCES {
        let status = client.recurrences().get(&name(number)).expect("to read");
        let status = status.expect("it is stored");
        let next = status.next_slot().expect("it has no end");
        let range = began_at..next;
        let explained = client.recurrences().explain(&name(number), range);
        let explained = explained.expect("to explain");
        let mut expected = None;
        for each in explained.slots() {
            assert!(matches!(each.fate(), SlotFate::Made(_)), "{each:?}");
            assert!(expected.is_none_or(|expected| each.slot() == expected));
            expected = Some(each.slot() + TimeDelta::seconds(1));
            assert_eq!(made.get(&(name(number), each.slot())), Some(&1));
            slots += 1;
        }
        assert_eq!(expected, Some(next), "none is lost at the end");
        assert_eq!(status.made_count(), explained.slots().len() as u64);
    }
    assert_eq!(slots, made.len());
    eprintln!("recurrences: {kills} kills, {slots} slots");
    assert!(slots > RECURRENCES * 10, "{slots} slots in {STORM:?}");
}
