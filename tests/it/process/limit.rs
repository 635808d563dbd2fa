//! A limit for all processes, and what else one process decides for another: pause, reschedule, cancel, progress.

use std::time::Duration;

use punctual::{
    Cancel, Client, Filter, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskId, TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, eventually, part, wall_clock};

/// More than one process can run, and less than all.
const LIMIT: usize = 2;
const PROCESSES: usize = 4;
const TASKS: u32 = 240;

#[derive(Serialize, Deserialize)]
struct Slot(u32);

impl Payload for Slot {
    const KIND: &'static str = "slot";
}

/// It runs until it is told to stop, and tells how far it is.
#[derive(Serialize, Deserialize)]
struct Endless;

impl Payload for Endless {
    const KIND: &'static str = "endless";
}

#[test]
#[ignore = "a child process that runs what it may"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (slot, endless) = (part.clone(), part.clone());
    let _scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .handler_fn(move |_: Slot, cx: &TaskContext| {
            let begin = wall_clock();
            let _ = cx.cancelled_within(Duration::from_millis(3));
            slot.note(format!("{begin} {}", wall_clock()));
            Ok(Outcome::done())
        })
        .handler_fn(move |_: Endless, cx: &TaskContext| {
            endless.started(cx);
            let mut rounds = 0_u32;
            while !cx.cancelled_within(Duration::from_millis(5)) {
                rounds += 1;
                cx.progress(&rounds)?;
            }
            endless.ended(cx);
            Err("stopped".into())
        })
        .start()
        .expect("to open the file");
    part.say(&Line::Opened);
    part.die_with_parent();
    loop {
        std::thread::park();
    }
}

fn start(place: &Place) -> Process {
    let process = Process::start(part!(child), &place.file(), &[]);
    assert_eq!(process.line(), Line::Opened);
    process
}

fn limited() -> (Place, Client) {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    client
        .set_global_limit("slots", Some(LIMIT))
        .expect("to set a limit");
    (place, client)
}

fn schedule(client: &Client) -> Vec<TaskId> {
    let tasks = (0..TASKS).map(|number| NewTask::new(Slot(number)).queue("slots"));
    let scheduled = client.schedule_many(tasks).expect("to schedule");
    scheduled.iter().map(|each| each.id()).collect()
}

/// The begin and the end of what a process ran.
fn spans(lines: Vec<Line>) -> Vec<(i64, i64)> {
    let span = |line| match line {
        Line::Note(text) => {
            let (begin, end) = text.split_once(' ')?;
            Some((begin.parse().ok()?, end.parse().ok()?))
        }
        _ => None,
    };
    lines.into_iter().filter_map(span).collect()
}

/// How many of them overlap, at most.
fn most_at_once(spans: &[(i64, i64)]) -> i32 {
    let mut edges: Vec<(i64, i32)> = spans
        .iter()
        .flat_map(|&(begin, end)| [(begin, 1), (end, -1)])
        .collect();
    edges.sort_unstable();
    let mut now = 0;
    edges
        .iter()
        .map(|(_, change)| {
            now += change;
            now
        })
        .max()
        .unwrap_or_default()
}

#[test]
fn a_queue_s_limit_holds_in_all_processes_together() {
    let (place, client) = limited();
    let processes: Vec<_> = (0..PROCESSES).map(|_| start(&place)).collect();
    let ids = schedule(&client);
    for id in ids {
        let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
        assert_eq!(ended.state(), TaskState::Completed);
    }
    let each: Vec<Vec<(i64, i64)>> = processes
        .into_iter()
        .map(|process| spans(process.kill()))
        .collect();
    let all = each.concat();
    assert_eq!(all.len(), TASKS as usize);
    assert_eq!(
        most_at_once(&all),
        LIMIT as i32,
        "as many as may, and no more"
    );
    let busy = each.iter().filter(|spans| !spans.is_empty()).count();
    assert!(busy > 1, "one process did it all");
}

/// What a dead process held counts until it is taken back, and then makes room: never is more than one at it, and the others
/// go on.
#[test]
fn a_queue_s_limit_survives_the_death_of_who_held_it() {
    let (place, client) = limited();
    client
        .set_global_limit("slots", Some(1))
        .expect("to set a limit");
    let mut processes: Vec<_> = (0..3).map(|_| start(&place)).collect();
    let ids = schedule(&client);
    let mut all = Vec::new();
    for _ in 0..2 {
        // Whoever has the slot now dies in it, or just after it.
        let busy = eventually("one has the slot", || {
            processes.iter().position(|process| {
                all.extend(process.line_within(Duration::ZERO));
                process.line_within(Duration::from_millis(1)).is_some()
            })
        });
        let dead = processes.swap_remove(busy);
        all.extend(dead.kill());
    }
    for id in &ids {
        let ended = client
            .wait(*id, PATIENCE)
            .expect("to read")
            .expect("an end");
        assert_eq!(ended.state(), TaskState::Completed);
    }
    all.extend(processes.into_iter().flat_map(Process::kill));
    assert_eq!(most_at_once(&spans(all)), 1);
}

#[test]
fn what_one_process_decides_the_others_do() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    client.pause("slots").expect("to pause");
    let process = start(&place);
    // Progress is seen here, and a cancellation there.
    let endless = client.schedule(Endless).expect("to schedule").id();
    process.read_until(|line| matches!(line, Line::Started { .. }));
    eventually("its progress is seen", || {
        let task = client.get(endless).expect("to read").expect("it is there");
        let progress: Option<u32> = task.progress().expect("a number");
        progress.filter(|rounds| *rounds > 3)
    });
    assert_eq!(
        client.cancel(endless).expect("to cancel"),
        Cancel::Requested
    );
    process.read_until(|line| matches!(line, Line::Ended { .. }));
    let ended = client.wait(endless, PATIENCE).expect("to read");
    assert_eq!(ended.expect("an end").state(), TaskState::Cancelled);
    // A paused queue, a task that is far away, and then neither.
    let far = NewTask::new(Slot(1)).after(Duration::from_secs(3600));
    let far = client.schedule(far).expect("to schedule").id();
    let paused = client
        .schedule(NewTask::new(Slot(2)).queue("slots"))
        .expect("to schedule")
        .id();
    let soon = client.schedule(Slot(3)).expect("to schedule").id();
    assert!(client.wait(soon, PATIENCE).expect("to read").is_some());
    let pending = Filter::new().state(TaskState::Pending);
    assert_eq!(client.count(&pending).expect("to count"), 2);
    client.run_now(far).expect("to reschedule");
    assert!(client.wait(far, PATIENCE).expect("to read").is_some());
    assert_eq!(client.count(&pending).expect("to count"), 1);
    client.resume("slots").expect("to resume");
    assert!(client.wait(paused, PATIENCE).expect("to read").is_some());
}

#[derive(Serialize, Deserialize)]
struct Left;

impl Payload for Left {
    const KIND: &'static str = "left";
}

#[derive(Serialize, Deserialize)]
struct Right;

impl Payload for Right {
    const KIND: &'static str = "right";
}

#[test]
#[ignore = "a child process that has handlers for some kinds and queues"]
fn specialist() {
    let Some(part) = Part::played() else { return };
    let builder = Scheduler::builder(&part.file).workers(2);
    let told = part.clone();
    let tell = move |cx: &TaskContext| {
        told.note(format!("{} {}", cx.kind(), cx.queue()));
        Ok(Outcome::done())
    };
    let other = tell.clone();
    let builder = match part.argument::<String>(0).as_str() {
        "left" => builder.handler_fn(move |_: Left, cx: &TaskContext| tell(cx)),
        "right" => builder.handler_fn(move |_: Right, cx: &TaskContext| tell(cx)),
        _ => builder
            .handler_fn(move |_: Left, cx: &TaskContext| tell(cx))
            .handler_fn(move |_: Right, cx: &TaskContext| other(cx))
            .queue("special", 1)
            .only_queues(),
    };
    let _scheduler = builder.start().expect("to open the file");
    part.say(&Line::Opened);
    part.die_with_parent();
    loop {
        std::thread::park();
    }
}

/// A process with handlers for one kind, one with those for another, one for a queue of its own, and one that only schedules.
#[test]
fn each_process_runs_what_it_has_handlers_and_queues_for() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    client.pause("special").expect("to pause");
    let roles = ["left", "right", "special"];
    let processes = roles.map(|role| {
        let process = Process::start(part!(specialist), &place.file(), &[&role]);
        assert_eq!(process.line(), Line::Opened);
        process
    });
    let tasks = (0..20).flat_map(|_| [NewTask::new(Left), NewTask::new(Right)]);
    let scheduled = client.schedule_many(tasks).expect("to schedule");
    for each in &scheduled {
        let ended = client.wait(each.id(), PATIENCE).expect("to read");
        assert_eq!(ended.expect("an end").state(), TaskState::Completed);
    }
    let told: Vec<Vec<Line>> = processes.into_iter().map(Process::kill).collect();
    for (role, lines) in roles.iter().zip(&told) {
        let expected = match *role {
            "special" => vec![],
            kind => vec![Line::Note(format!("{kind} default")); 20],
        };
        assert_eq!(*lines, expected, "{role}");
    }
    // The queue that only the last one would have run, had it lived.
    client.resume("special").expect("to resume");
    let special = NewTask::new(Left).queue("special");
    let special = client.schedule(special).expect("to schedule").id();
    let process = Process::start(part!(specialist), &place.file(), &[&"special"]);
    let ended = client.wait(special, PATIENCE).expect("to read");
    assert_eq!(ended.expect("an end").state(), TaskState::Completed);
    let lines = process.kill();
    assert!(
        lines.contains(&Line::Note("left special".to_owned())),
        "{lines:?}"
    );
}
