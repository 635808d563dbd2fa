//! What a process of the storm does until it is killed.

use std::time::Duration;

use punctual::{
    AsyncContext, Client, Filter, NewTask, Outcome, Payload, RetryPolicy, Scheduler, TaskContext,
    TaskId, TaskState, Tx,
};

use super::{BATCH, CALLS, Held, Mode, Quick, WORKERS, first_of, id, pad};
use crate::asynchronous::everywhere::yield_once;
use crate::process::kit::{Line, PATIENCE, Part, Place, Process, eventually, part, runtime};

/// Starts the process of this number.
pub(super) fn start(place: &Place, number: usize, seed: u64, mode: Mode) -> Process {
    Process::start(part!(child), &place.file(), &[&number, &seed, &mode])
}

/// A future with a timeout waits in its first attempt until it is dropped.
const TIMEOUT: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(20);

/// Says that an attempt ends, also when its future is dropped.
struct Ends(Part, AsyncContext);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended(&self.1);
    }
}

/// One process of the storm.
struct Storm {
    part: Part,
    client: Client,
    random: fastrand::Rng,
    /// Where its ids begin, and how many it has used.
    first: u128,
    count: u32,
}

impl Storm {
    fn next(&mut self, count: u32) -> u128 {
        let first = self.first + u128::from(self.count);
        self.count += count;
        first
    }

    fn quick(&mut self, number: u128) -> NewTask {
        NewTask::new(Quick {
            pad: pad(id(number)),
        })
        .id(id(number))
        .priority(self.random.u8(1..=9))
        .max_crashes(1_000)
    }

    fn told(&self, first: u128, count: u32, call: impl FnOnce() -> punctual::Result<usize>) {
        self.part.say(&Line::Scheduling { first, count });
        assert_eq!(call().expect("to schedule"), count as usize);
        self.part.say(&Line::Scheduled { first, count });
    }

    fn one(&mut self, task: impl FnOnce(NewTask) -> NewTask) {
        let number = self.next(1);
        let mut task = task(self.quick(number));
        if self.random.u8(0..10) == 0 {
            // On a slow machine it may time out again and again while others are ahead of it.
            task = task.timeout(TIMEOUT).max_attempts(1_000);
        }
        let by_receipt = self.random.u8(0..10) == 0;
        let client = self.client.clone();
        self.told(number, 1, || {
            let scheduled = if by_receipt {
                client.submit().schedule(task).wait()
            } else {
                client.schedule(task)
            };
            scheduled.map(|scheduled| usize::from(scheduled.is_new()))
        });
    }

    fn many(&mut self, count: u32, due: impl Fn(NewTask) -> NewTask) {
        let first = self.next(count);
        let tasks: Vec<NewTask> = (0..count)
            .map(|offset| due(self.quick(first + u128::from(offset))))
            .collect();
        self.told(first, count, || {
            let scheduled = self.client.schedule_many(tasks)?;
            Ok(scheduled.iter().filter(|each| each.is_new()).count())
        });
    }

    fn held(&mut self) {
        let number = self.next(1);
        let attempts = self.random.u32(1..=2);
        let task = NewTask::new(Held { attempts })
            .id(id(number))
            .priority(0)
            .max_crashes(1_000);
        self.told(number, 1, || self.client.schedule(task).map(|_| 1));
    }

    fn cancel(&mut self) {
        // The first is the one that is surely held when the process dies.
        let id = id(self.first + u128::from(self.random.u32(1..self.count)));
        self.part.say(&Line::Cancelling(id));
        let answer = self.client.cancel(id).expect("to cancel");
        self.part.say(&Line::Answered(id, answer));
    }

    fn call(&mut self, mode: Mode) {
        let later = |task: NewTask| task.after(Duration::from_secs(3600));
        match self.random.u32(0..100) {
            _ if self.count == 0 || self.count == 20 => self.held(),
            0..10 if self.count > 1 => self.cancel(),
            // The commits of its handlers would be in the way.
            _ if mode == Mode::Commit => self.one(later),
            10..14 => self.many(100, |task| task),
            14..24 => self.one(later),
            24..34 => {
                let delay = Duration::from_micros(self.random.u64(0..40_000));
                self.one(|task| task.after(delay));
            }
            _ => self.one(|task| task),
        }
    }
}

/// How the handlers of a process run. Each kind is a future in one half of the processes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handlers {
    pub(super) quick_is_async: bool,
    pub(super) held_is_async: bool,
    /// On a tokio runtime, or else on the workers.
    pub(super) on_tokio: bool,
}

impl Handlers {
    fn of(process: u128) -> Self {
        let is_even = process.is_multiple_of(2);
        Self {
            quick_is_async: is_even,
            held_is_async: !is_even,
            on_tokio: process % 4 < 2,
        }
    }
}

pub(super) fn open(part: &Part, workers: usize, mode: Mode, handlers: Handlers) -> Scheduler {
    let mut builder = Scheduler::builder(&part.file)
        .workers(workers)
        .max_in_flight(32)
        .retry_policy(Quick::KIND, RetryPolicy::fixed(RETRY));
    if handlers.on_tokio {
        let runtime = runtime();
        builder = builder.spawner(runtime.handle().clone());
        // It lives as long as the process.
        std::mem::forget(runtime);
    }
    let check = |part: &Part, task: &Quick, id: TaskId| {
        if task.pad != pad(id) {
            part.note(format!("the payload of {id} is another"));
        }
    };
    let is_held = move |task: &Held, attempt: u32| mode != Mode::Last && attempt <= task.attempts;
    let (quick, held) = (part.clone(), part.clone());
    builder = if handlers.quick_is_async {
        let builder = builder.stop_grace(Quick::KIND, Duration::ZERO);
        builder.async_handler_fn(move |task: Quick, cx: AsyncContext| {
            let quick = quick.clone();
            async move {
                quick.started(&cx);
                let ends = Ends(quick.clone(), cx.clone());
                check(&quick, &task, cx.id());
                if mode != Mode::Last && cx.deadline().is_some() && cx.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                match cx.id().as_uuid().as_u128() % 3 {
                    0 => yield_once().await,
                    // Its task may be cancelled meanwhile.
                    1 => drop(cx.progress("half").await),
                    _ => {
                        drop(ends);
                        let done = |_: &Tx<'_>| Ok::<_, punctual::Error>(Outcome::done());
                        return Ok(cx.complete(done).await?);
                    }
                }
                drop(ends);
                Ok(Outcome::done())
            }
        })
    } else {
        builder.handler_fn(move |task: Quick, cx: &TaskContext| {
            quick.started(cx);
            check(&quick, &task, cx.id());
            // Long enough that others are claimed and wait.
            let _ = cx.cancelled_within(Duration::from_micros(50));
            quick.ended(cx);
            Ok(Outcome::done())
        })
    };
    builder = if handlers.held_is_async {
        builder.async_handler_fn(move |task: Held, cx: AsyncContext| {
            let held = held.clone();
            async move {
                held.started(&cx);
                if is_held(&task, cx.attempt()) {
                    std::future::pending::<()>().await;
                }
                held.ended(&cx);
                Ok(Outcome::done())
            }
        })
    } else {
        builder.handler_fn(move |task: Held, cx: &TaskContext| {
            held.started(cx);
            while is_held(&task, cx.attempt()) {
                std::thread::park();
            }
            held.ended(cx);
            Ok(Outcome::done())
        })
    };
    builder.start().expect("to open the file")
}

#[test]
#[ignore = "a child process of the storm"]
fn child() {
    let Some(part) = Part::played() else { return };
    let (number, seed, mode): (u128, u64, Mode) =
        (part.argument(0), part.argument(1), part.argument(2));
    part.say(&Line::Opening);
    let scheduler = open(&part, WORKERS, mode, Handlers::of(number));
    part.say(&Line::Opened);
    if mode == Mode::Last {
        return run_what_is_left(&part, &scheduler);
    }
    let mut storm = Storm {
        part: part.clone(),
        client: scheduler.client(),
        random: fastrand::Rng::with_seed(seed),
        first: first_of(number),
        count: 0,
    };
    match mode {
        Mode::Commit | Mode::Reopen => {
            for _ in 0..=CALLS {
                storm.call(mode);
            }
        }
        _ => {
            part.die_with_parent();
            loop {
                storm.call(mode);
            }
        }
    }
    for order in 0.. {
        part.next_order();
        if mode == Mode::Commit {
            let quick = Filter::new().kind(Quick::KIND).state(TaskState::Running);
            eventually("nobody else writes", || {
                (scheduler.count(&quick).expect("to count") == 0).then_some(())
            });
            storm.many(BATCH, |task| task.after(Duration::from_secs(3600)));
        } else if order % 2 == 0 {
            part.say(&Line::Opening);
            let client = Client::open(&part.file).expect("to open the file again");
            part.say(&Line::Opened);
            drop(client);
        } else {
            part.say(&Line::Opening);
            let scheduler = Scheduler::builder(&part.file)
                .workers(1)
                .start()
                .expect("to open the file again");
            part.say(&Line::Opened);
            drop(scheduler);
        }
    }
}

fn run_what_is_left(part: &Part, scheduler: &Scheduler) {
    let pending = Filter::new().state(TaskState::Pending);
    scheduler.run_now_all(&pending).expect("to make them due");
    let unfinished = pending.state(TaskState::Running);
    let mut left = u64::MAX;
    while left > 0 {
        left = eventually("fewer tasks are left", || {
            let count = scheduler.count(&unfinished).expect("to count");
            (count < left).then_some(count)
        });
    }
    let shutdown = scheduler.shutdown(PATIENCE).expect("to shut down");
    assert_eq!(shutdown.still_running(), 0);
    part.note("done");
}
