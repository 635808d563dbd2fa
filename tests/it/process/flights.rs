//! Processes that are killed, or lose their power, with thousands of futures in flight: nothing is lost, doubled or blamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{
    AsyncContext, Client, Failure, Filter, NewTask, Outcome, Payload, Scheduler, Task, TaskId,
    TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{
    Line, Part, Place, Process, eventually, part, runtime, seed, spin, until_nothing_is_left,
};

const MANY: u32 = 2_000;
const KILLS: u32 = 4;

/// Adds its number to a table.
#[derive(Serialize, Deserialize)]
struct Adds(u32);

impl Payload for Adds {
    const KIND: &'static str = "adds";
}

/// Its first argument: whether futures end. Others wait until their process dies. It notes when so many have begun as its
/// second argument says.
#[test]
#[ignore = "a child process with thousands of futures in flight"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (ends, told_at): (bool, u32) = (part.argument(0), part.argument(1));
    let runtime = runtime();
    let (begun, told) = (Arc::new(AtomicU32::new(0)), part.clone());
    let scheduler = Scheduler::builder(&part.file)
        .max_in_flight(MANY as usize)
        .async_handler_fn(move |Adds(number), cx: AsyncContext| {
            let (begun, told) = (Arc::clone(&begun), told.clone());
            async move {
                if begun.fetch_add(1, Ordering::SeqCst) + 1 == told_at {
                    told.note("in flight");
                }
                // One in two writes before it waits: that stands, whatever becomes of its process.
                let writes = cx.complete(move |tx| {
                    tx.sqlite()?
                        .execute("INSERT INTO added VALUES (?1)", [number])?;
                    Ok::<_, Failure>(Outcome::done())
                });
                match (ends, number % 2) {
                    (false, 0) => drop(writes.await?),
                    (false, _) => {}
                    (true, _) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        return writes.await;
                    }
                }
                std::future::pending().await
            }
        })
        .spawner(runtime.handle().clone())
        .start()
        .expect("to open the file");
    until_nothing_is_left(&scheduler);
}

/// A file with so many tasks.
fn file_with(place: &Place, count: u32) -> (Client, Vec<TaskId>) {
    let client = Client::open(place.file()).expect("to open the file");
    let table = client.transaction(|tx| {
        tx.sqlite()?
            .execute_batch("CREATE TABLE added (number INTEGER)")?;
        Ok::<_, Failure>(())
    });
    table.expect("a table");
    let tasks = (0..count).map(|number| NewTask::new(Adds(number + 1)));
    let scheduled = client.schedule_many(tasks).expect("to schedule");
    let ids = scheduled.iter().map(|each| each.id()).collect();
    (client, ids)
}

/// Runs a process to its end, and looks at what all have left. Returns the tasks.
fn run_to_the_end(place: &Place, client: &Client, ids: &[TaskId]) -> Vec<Task> {
    let last = Process::start(part!(child), &place.file(), &[&true, &0]);
    let (status, _) = last.end();
    assert!(status.success(), "{status}");
    let reader = Connection::open(place.file()).expect("to read the table");
    let added: (u32, u32) = reader
        .query_row(
            "SELECT count(*), count(DISTINCT number) FROM added",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("to count");
    assert_eq!(added, (MANY, MANY), "P6: rows, and different ones");
    let get = |id: &TaskId| client.get(*id).expect("to read").expect("it is there");
    let tasks: Vec<Task> = ids.iter().map(get).collect();
    for task in &tasks {
        let ended = (task.state(), task.blamed_crashes());
        assert_eq!(ended, (TaskState::Completed, 0), "{task:?}");
    }
    tasks
}

/// P4, P6, P11: first with all in flight, then at any time.
#[test]
fn hard_kills_with_thousands_of_futures_in_flight_blame_nobody() {
    let mut random = fastrand::Rng::with_seed(seed("flights"));
    let place = Place::new();
    let (client, ids) = file_with(&place, MANY);
    for kill in 0..KILLS {
        // Later there are groups of them. One that ran alone would be blamed: half of these are still there at the kill.
        let told_at = if kill == 0 { MANY } else { 16 };
        let process = Process::start(part!(child), &place.file(), &[&false, &told_at]);
        process.read_until(|line| *line == Line::Note("in flight".into()));
        spin(Duration::from_micros(random.u64(0..20_000)));
        process.kill();
    }
    let tasks = run_to_the_end(&place, &client, &ids);
    let crashes = tasks.iter().map(|task| task.crashes()).max();
    assert!(crashes > Some(1), "they were in flight more than once");
}

/// P4, P11: all run together at once in the next process, as if nothing had been.
#[test]
fn power_cuts_with_thousands_of_futures_in_flight_blame_nobody() {
    let place = Place::new();
    let (client, ids) = file_with(&place, MANY);
    let unfinished = Filter::new()
        .state(TaskState::Pending)
        .state(TaskState::Running);
    for _ in 0..2 {
        let in_flight = client.count(&unfinished).expect("to count");
        assert!(in_flight >= u64::from(MANY) / 2);
        let process = Process::start(part!(child), &place.file(), &[&false, &in_flight]);
        process.read_until(|line| *line == Line::Note("in flight".into()));
        process.kill();
        let conn = Connection::open(place.file()).expect("to open the file");
        let sql =
            "UPDATE punctual_instance SET boot_id = 'another' WHERE ended_at IS NULL AND pid <> ?1";
        let dead = conn
            .execute(sql, [std::process::id()])
            .expect("another boot");
        assert_eq!(dead, 1, "the process that was killed");
    }
    run_to_the_end(&place, &client, &ids);
}

/// P12: others may wait for such tasks.
#[test]
fn tasks_that_ran_in_a_crash_are_told_and_until_when_nothing_starts_beside_one() {
    let place = Place::new();
    let (client, _) = file_with(&place, 2);
    // First both, then one of them beside another: that one is tried next.
    for _ in 0..2 {
        let process = Process::start(part!(child), &place.file(), &[&false, &2]);
        process.read_until(|line| *line == Line::Note("in flight".into()));
        process.kill();
        client.schedule(Adds(3)).expect("to schedule");
    }
    let builder = Scheduler::builder(place.file()).queue("another", 1);
    let waits = builder.only_queues().start().expect("to open the file");
    eventually("they wait", || {
        (waits.health().suspect_kinds() == [Adds::KIND]).then_some(())
    });
    drop(waits);
    let builder = Scheduler::builder(place.file())
        .async_handler_fn(|_: Adds, _cx| std::future::pending::<punctual::TaskResult>());
    let tries = builder.start().expect("to open the file");
    let until = eventually("one is tried", || tries.health().quiet_until());
    let running = client.list(&Filter::new().state(TaskState::Running));
    let running = running.expect("to read").tasks().to_vec();
    let started_at = running.iter().filter_map(Task::started_at).max();
    let span = until - started_at.expect("one runs");
    assert_eq!(span.num_seconds().clamp(9, 10), span.num_seconds());
}
