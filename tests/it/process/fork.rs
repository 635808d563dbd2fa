//! A process that forks without exec: its child may not touch the store, and the parent goes on as before.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fork::{Fork, fork, waitpid};
use punctual::{
    AsyncContext, Client, ErrorKind, NewTask, Outcome, Payload, Scheduler, TaskContext, TaskState,
};
use serde::{Deserialize, Serialize};

use super::kit::{Line, PATIENCE, Part, Place, Process, eventually, part};
use crate::asynchronous::Kept;

#[derive(Serialize, Deserialize)]
struct Quick;

impl Payload for Quick {
    const KIND: &'static str = "quick";
}

/// What the forked child finds, in words.
fn found(part: &Part, scheduler: Scheduler, client: Client) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, kind: Option<ErrorKind>| found.push(format!("{what} {kind:?}"));
    let id = punctual::TaskId::new();
    note(
        "schedule",
        scheduler.schedule(Quick).err().map(|error| error.kind()),
    );
    note(
        "submit",
        scheduler
            .submit()
            .schedule(Quick)
            .wait()
            .err()
            .map(|error| error.kind()),
    );
    note("get", client.get(id).err().map(|error| error.kind()));
    note("cancel", client.cancel(id).err().map(|error| error.kind()));
    note(
        "wait",
        client.wait(id, PATIENCE).err().map(|error| error.kind()),
    );
    note("health", client.health().stopped());
    note(
        "shutdown",
        scheduler.shutdown(PATIENCE).err().map(|error| error.kind()),
    );
    note(
        "open",
        Client::open(&part.file).err().map(|error| error.kind()),
    );
    note(
        "open another",
        Client::open(part.file.with_file_name("another.db"))
            .err()
            .map(|error| error.kind()),
    );
    drop(scheduler);
    drop(client);
    note(
        "open later",
        Client::open(&part.file).err().map(|error| error.kind()),
    );
    found
}

/// It is not over before its process is.
#[derive(Serialize, Deserialize)]
struct Endless;

impl Payload for Endless {
    const KIND: &'static str = "endless";
}

fn run_one(client: &Client) {
    let id = client.schedule(Quick).expect("to schedule").id();
    let ended = client.wait(id, PATIENCE).expect("to read").expect("an end");
    assert_eq!(ended.state(), TaskState::Completed);
}

#[test]
#[ignore = "a child process that forks"]
fn child() {
    let Some(part) = Part::played() else { return };
    let open = || {
        let scheduler = Scheduler::builder(&part.file)
            .workers(1)
            .handler_fn(|_: Quick, _: &TaskContext| Ok(Outcome::done()))
            .start()
            .expect("to open the file");
        let client = Client::open(&part.file).expect("to open the file");
        (scheduler, client)
    };
    // What was closed before is no hindrance.
    drop(open());
    if let Fork::Parent(pid) = fork().expect("a fork") {
        let status = waitpid(pid).expect("its end");
        assert_eq!(status, 0, "the child of a process without a store");
    } else {
        let (scheduler, client) = open();
        run_one(&client);
        drop((scheduler, client));
        std::process::exit(0);
    }
    let (scheduler, client) = open();
    client.schedule(Quick).expect("to schedule");
    match fork().expect("a fork") {
        Fork::Child => {
            for line in found(&part, scheduler, client) {
                part.note(line);
            }
            std::process::exit(0);
        }
        Fork::Parent(pid) => {
            let status = waitpid(pid).expect("its end");
            part.note(format!("the child ended with {status}"));
        }
    }
    // The parent is unharmed: its locks, its log, its threads.
    for _ in 0..20 {
        run_one(&client);
    }
    let stopped = scheduler
        .shutdown(Duration::from_secs(10))
        .expect("to stop");
    part.note(format!("{} still run", stopped.still_running()));
}

#[test]
fn p7_a_forked_child_is_told_and_harms_nobody() {
    let place = Place::new();
    let process = Process::start(part!(child), &place.file(), &[]);
    let calls = [
        "schedule",
        "submit",
        "get",
        "cancel",
        "wait",
        "health",
        "shutdown",
        "open",
        "open another",
        "open later",
    ];
    for call in calls {
        let expected = format!("{call} {:?}", Some(ErrorKind::Forked));
        assert_eq!(process.line(), Line::Note(expected));
    }
    assert_eq!(
        process.line(),
        Line::Note("the child ended with 0".to_owned())
    );
    assert_eq!(process.line(), Line::Note("0 still run".to_owned()));
    let (status, _) = process.end();
    assert!(status.success(), "{status}");
    let client = Client::open(place.file()).expect("to open the file");
    let counts = client.count(&punctual::Filter::all().state(TaskState::Completed));
    assert_eq!(counts.expect("to count"), 22);
}

#[test]
#[ignore = "a child process whose own child outlives it"]
fn parent() {
    let Some(part) = Part::played() else { return };
    let handler = part.clone();
    let _scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .handler_fn(move |_: Endless, cx: &TaskContext| {
            handler.started(cx);
            loop {
                std::thread::park();
            }
        })
        .start()
        .expect("to open the file");
    assert_eq!(part.next_order(), "fork");
    match fork().expect("a fork") {
        Fork::Child => loop {
            let order = part.next_order();
            part.note(format!("the child: {order}"));
        },
        Fork::Parent(_) => loop {
            std::thread::park();
        },
    }
}

/// The child has its parent's files open, and so holds the lock that proved its life.
#[test]
fn p11_a_forked_child_does_not_keep_a_dead_process_s_tasks() {
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let id = client.schedule(Endless).expect("to schedule").id();
    let mut process = Process::start(part!(parent), &place.file(), &[]);
    process.read_until(|line| matches!(line, Line::Started { .. }));
    process.order("fork");
    process.order("once");
    assert_eq!(process.line(), Line::Note("the child: once".to_owned()));
    process.signal(rustix::process::Signal::KILL);
    let scheduler = Scheduler::builder(place.file())
        .workers(1)
        .handler_fn(|_: Endless, _: &TaskContext| Ok(Outcome::done()))
        .start()
        .expect("to open the file");
    let ended = scheduler.wait(id, PATIENCE).expect("to read");
    let task = ended.expect("an end");
    assert_eq!(task.state(), TaskState::Completed);
    assert_eq!(task.task().crashes(), 1);
    process.order("again");
    assert_eq!(process.line(), Line::Note("the child: again".to_owned()));
}

#[test]
#[ignore = "a child process that forks while an executor of its own holds a task"]
fn unpolled() {
    let Some(part) = Part::played() else { return };
    let kept = Kept::default();
    let handler = part.clone();
    let scheduler = Scheduler::builder(&part.file)
        .async_handler_fn(move |_: Quick, cx: AsyncContext| {
            handler.started(&cx);
            async { Ok(Outcome::done()) }
        })
        .spawner(kept.clone())
        .start()
        .expect("to open the file");
    kept.take();
    let id = scheduler.schedule(Quick).expect("to schedule").id();
    let mut future = eventually("it is handed over", || kept.take().pop());
    match fork().expect("a fork") {
        Fork::Child => {
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            std::process::exit(i32::from(polled.is_ready()));
        }
        Fork::Parent(child) => {
            let status = waitpid(child).expect("its end");
            part.note(format!("the child ended with {status}"));
        }
    }
    smol::block_on(future);
    let ended = scheduler.wait(id, PATIENCE).expect("to read");
    part.note(format!("{:?}", ended.expect("an end").state()));
}

/// The child has a copy of the executor, and of what it was given.
#[test]
fn p7_a_forked_child_starts_nothing_on_its_parent_s_executor() {
    let place = Place::new();
    let process = Process::start(part!(unpolled), &place.file(), &[]);
    assert_eq!(
        process.line(),
        Line::Note("the child ended with 0".to_owned())
    );
    assert!(matches!(process.line(), Line::Started { .. }));
    assert_eq!(process.line(), Line::Note("Completed".to_owned()));
}

#[test]
#[ignore = "a child process that forks inside a transaction"]
fn inside() {
    let Some(part) = Part::played() else { return };
    let scheduler = match part.argument::<String>(0).as_str() {
        "file" => Scheduler::builder(&part.file),
        _ => Scheduler::in_memory(),
    };
    let scheduler = scheduler.start().expect("to start");
    let client = scheduler.client();
    let later = || NewTask::new(Quick).after(Duration::from_secs(3600));
    let mut waits = None;
    let done = client.transaction(|tx| {
        tx.sqlite()?.execute_batch("CREATE TABLE own (x)")?;
        tx.schedule(later())?;
        // It waits for its turn; not the child is to give it that.
        let submit = || client.submit().schedule(later());
        waits = std::thread::scope(|scope| scope.spawn(submit).join()).ok();
        if let Fork::Parent(child) = fork().expect("a fork") {
            let status = waitpid(child).expect("its end");
            part.note(format!("the child ended with {status}"));
            for x in 0..200 {
                tx.sqlite()?.execute("INSERT INTO own VALUES (?1)", [x])?;
            }
        } else {
            let kind = tx.schedule(later()).map_err(|error| error.kind());
            part.note(format!("inside {:?}", kind.map(|_| ())));
            let sql = tx.sqlite()?.execute("INSERT INTO own VALUES (0)", []);
            part.note(format!("its SQL is refused: {}", sql.is_err()));
            sql?;
        }
        Ok::<_, punctual::Error>(())
    });
    if let Err(error) = done {
        part.note(format!("after {:?}", error.kind()));
        std::process::exit(0);
    }
    let waits = waits.expect("a receipt").wait();
    waits.expect("to schedule what waited");
    for _ in 0..20 {
        client.schedule(later()).expect("to schedule");
    }
    let rows = client.transaction(|tx| {
        let count = "SELECT count(*) FROM own";
        let rows: i64 = tx.sqlite()?.query_row(count, [], |row| row.get(0))?;
        Ok::<_, punctual::Error>(rows)
    });
    let tasks = client.count(&punctual::Filter::all());
    part.note(format!("{rows:?} rows, {tasks:?} tasks"));
}

/// It would have committed its parent's transaction, without a lock.
#[test]
fn p7_a_child_that_was_forked_inside_a_transaction_leaves_it_to_its_parent() {
    for store in ["file", "memory"] {
        let place = Place::new();
        let process = Process::start(part!(inside), &place.file(), &[&store]);
        let expected = [
            "inside Err(Forked)",
            "its SQL is refused: true",
            "after Forked",
            "the child ended with 0",
            "Ok(200) rows, Ok(22) tasks",
        ];
        for line in expected {
            assert_eq!(process.line(), Line::Note(line.to_owned()), "{store}");
        }
        let (status, _) = process.end();
        assert!(status.success(), "{status}");
    }
}

#[test]
#[ignore = "a child process whose handler forks"]
fn handler() {
    let Some(part) = Part::played() else { return };
    let handler = part.clone();
    let scheduler = Scheduler::builder(&part.file)
        .workers(1)
        .handler_fn(move |_: Quick, cx: &TaskContext| {
            handler.started(cx);
            Ok(Outcome::done())
        })
        .handler_fn(|_: Endless, _: &TaskContext| {
            if let Fork::Parent(pid) = fork().expect("a fork") {
                let status = waitpid(pid).expect("its end");
                assert_eq!(status, 0);
            }
            Ok(Outcome::done())
        })
        .start()
        .expect("to open the file");
    let client = scheduler.client();
    // Those are known to be quick, and so claimed many at a time.
    for _ in 0..20 {
        run_one(&client);
    }
    let mut tasks = vec![NewTask::new(Endless)];
    tasks.extend((0..500).map(|_| NewTask::new(Quick)));
    let tasks = client.schedule_many(tasks).expect("to schedule");
    for task in tasks {
        client
            .wait(task.id(), PATIENCE)
            .expect("to read")
            .expect("an end");
    }
    part.note("done");
}

/// It has its parent's memory, and in it the tasks that wait for a worker.
#[test]
fn p7_a_child_that_a_handler_has_forked_runs_nothing() {
    let place = Place::new();
    let process = Process::start(part!(handler), &place.file(), &[]);
    let done = Line::Note("done".to_owned());
    let lines = process.read_until(|line| *line == done);
    let starts = lines
        .iter()
        .filter(|line| matches!(line, Line::Started { .. }));
    assert_eq!(starts.count(), 520);
}

#[test]
#[ignore = "a child process whose child goes on with its transaction"]
fn goes_on() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).expect("to open the file");
    let done = client.transaction(|tx| {
        tx.sqlite()?
            .execute_batch("CREATE TABLE own (x); CREATE TABLE other (x)")?;
        // Permitted before the fork; and so much that it does not stay in memory.
        let large = "INSERT INTO other VALUES (zeroblob(1000000))";
        let mut large = tx.sqlite()?.prepare(large)?;
        if let Fork::Parent(child) = fork().expect("a fork") {
            for x in 0..200 {
                tx.sqlite()?.execute("INSERT INTO own VALUES (?1)", [x])?;
            }
            part.note(format!("{:?}", waitpid(child).is_ok()));
        } else {
            for _ in 0..60 {
                large.execute([])?;
            }
            part.note("it wrote");
        }
        Ok::<_, punctual::Error>(())
    });
    done.expect("to commit");
    for _ in 0..20 {
        client.schedule(Quick).expect("to schedule");
    }
}

#[test]
fn p7_a_child_that_goes_on_with_its_parent_s_transaction_ends() {
    let place = Place::new();
    let process = Process::start(part!(goes_on), &place.file(), &[]);
    assert_eq!(process.line(), Line::Note("true".to_owned()));
    let (status, _) = process.end();
    assert!(status.success(), "{status}");
    assert_eq!(place.number("SELECT count(*) FROM own"), 200);
    assert_eq!(place.number("SELECT count(*) FROM punctual_task"), 20);
}

#[derive(Serialize, Deserialize)]
struct Flies(u32);

impl Payload for Flies {
    const KIND: &'static str = "flies";
}

#[test]
#[ignore = "a child process in which a future forks"]
fn flight() {
    let Some(part) = Part::played() else { return };
    let (wakers, told) = (Arc::new(Mutex::new(Vec::<Waker>::new())), part.clone());
    let waiting = Arc::clone(&wakers);
    let may_go = Arc::new(AtomicBool::new(false));
    let goes = Arc::clone(&may_go);
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .async_handler_fn(move |Flies(number), _cx| {
            let (waiting, told, goes) = (Arc::clone(&waiting), told.clone(), Arc::clone(&goes));
            async move {
                poll_fn(|cx| {
                    if goes.load(Ordering::SeqCst) {
                        return Poll::Ready(());
                    }
                    waiting.lock().expect("wakers").push(cx.waker().clone());
                    Poll::Pending
                })
                .await;
                if number > 0 {
                    told.note(format!("{number} in {}", std::process::id()));
                    return Ok(Outcome::done());
                }
                // The others wait for the one worker, which is this thread.
                let others = std::mem::take(&mut *waiting.lock().expect("wakers"));
                others.into_iter().for_each(Waker::wake);
                if let Fork::Parent(child) = fork().expect("a fork") {
                    let status = waitpid(child).expect("its end");
                    told.note(format!("the child ended with {status}"));
                }
                Ok(Outcome::done())
            }
        })
        .start()
        .expect("to start");
    let ids = [0, 1, 2].map(|number| scheduler.schedule(Flies(number)).expect("to schedule"));
    let first = eventually("they wait", || {
        let mut wakers = wakers.lock().expect("wakers");
        (wakers.len() == 3).then(|| wakers.remove(0))
    });
    may_go.store(true, Ordering::SeqCst);
    first.wake();
    for id in ids {
        let ended = scheduler.wait(id.id(), PATIENCE).expect("to read");
        assert_eq!(ended.expect("an end").state(), TaskState::Completed);
    }
}

/// The worker of the child has futures that were woken. They are the parent's.
#[test]
fn p7_a_child_that_a_future_has_forked_polls_nothing() {
    let place = Place::new();
    let process = Process::start(part!(flight), &place.file(), &[]);
    let ended = "the child ended with 0".to_owned();
    assert_eq!(process.line(), Line::Note(ended));
    for number in [1, 2] {
        let ran = format!("{number} in {}", process.id());
        assert_eq!(process.line(), Line::Note(ran));
    }
    let (status, _) = process.end();
    assert!(status.success(), "{status}");
}
