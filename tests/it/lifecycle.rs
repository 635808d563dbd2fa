//! The life of a task through the public face.

use punctual::{
    AttemptEnd, Client, Edit, ErrorKind, Failure, Filter, NewTask, Outcome, Scheduled, Scheduler,
    TaskId, TaskState,
};

use crate::kit::{
    DAY, LONG, Log, MICRO, Other, Probe, S, clock, eventually, file, probe, state, task,
};

#[test]
fn scheduling_again_by_the_same_id_makes_no_second_task() {
    let runs = Log::new();
    let log = runs.clone();
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(move |Probe(n), _cx| {
            log.push(n);
            Ok(Outcome::done())
        })
        .stepped(&clock())
        .unwrap();
    let task = probe(1);
    let first = scheduler.schedule(task.clone()).unwrap();
    let id = first.id();
    assert_eq!(first, Scheduled::New(id));
    assert_eq!(
        scheduler.schedule(task.clone()).unwrap(),
        Scheduled::Existing(id)
    );
    scheduler.drain();
    assert_eq!(
        scheduler.schedule(task).unwrap(),
        Scheduled::Existing(id),
        "even when it has ended"
    );
    scheduler.drain();
    assert_eq!(runs.take(), [1]);
}

/// It was answered as if it were the same, and never ran.
#[test]
fn the_same_id_with_another_kind_or_payload_is_told_apart() {
    let (_dir, path) = file();
    let scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    // Due and not due, alone and among others: each is stored in its own way.
    for delay in [DAY, std::time::Duration::ZERO] {
        let id = TaskId::new();
        let first = probe(1).id(id).after(delay);
        let mut calls = vec![
            (first.clone(), Scheduled::New(id)),
            (probe(1).id(id).priority(1), Scheduled::Existing(id)),
            (probe(2).id(id), Scheduled::Different(id)),
            (
                NewTask::with_kind("other", &1).id(id),
                Scheduled::Different(id),
            ),
            (probe(2).id(id).tag("rare"), Scheduled::Different(id)),
        ];
        for (task, answer) in &calls {
            assert_eq!(scheduler.schedule(task.clone()).unwrap(), *answer);
        }
        drop(calls.remove(0));
        let many = scheduler.schedule_many(calls.iter().map(|call| call.0.clone()));
        let answers: Vec<Scheduled> = calls.iter().map(|call| call.1).collect();
        assert_eq!(many.unwrap(), answers);
        let among_others = (0..20).map(|n| match n {
            3 => probe(1).id(id),
            9 => probe(3).id(id),
            _ => probe(n).after(DAY),
        });
        let streamed = scheduler.schedule_stream(among_others).unwrap();
        let counts = (streamed.new_count(), streamed.existing_count());
        assert_eq!((counts, streamed.different_count()), ((18, 1), 1));
        assert_eq!(task(&scheduler, id).payload::<Probe>().unwrap().0, 1);
    }
    let twin: TaskId = "01890000-0000-7000-8000-000000000007".parse().unwrap();
    let twins = [1, 2, 1].map(|n| probe(n).id(twin));
    let [new, different, existing] = scheduler.schedule_many(twins).unwrap()[..] else {
        panic!("three answers")
    };
    assert!(matches!(new, Scheduled::New(_)));
    assert!(matches!(different, Scheduled::Different(_)));
    assert!(matches!(existing, Scheduled::Existing(_)));
}

/// Its queue had to be paused for it, or it ran once more with what had failed.
#[test]
fn a_failed_task_is_repaired_and_retried_in_one_call() {
    let mut scheduler = Scheduler::in_memory()
        .handler_fn(|Probe(n), _cx| match n {
            1 => Err(punctual::Failure::fatal("one is wrong")),
            n => Outcome::with(&n),
        })
        .stepped(&clock())
        .unwrap();
    let tasks = scheduler.schedule_many((0..4).map(|_| probe(1).tag("x")));
    let ids: Vec<TaskId> = tasks.unwrap().iter().map(|each| each.id()).collect();
    scheduler.drain();
    let repaired = |n| Edit::new().payload(&Probe(n)).priority(2).max_attempts(7);
    scheduler.retry_with(ids[0], repaired(2)).unwrap();
    let receipt = scheduler.submit().retry_with(ids[1], repaired(3));
    receipt.wait().unwrap();
    let wrong = scheduler.retry_with(ids[2], Edit::new().payload(&Other(1)));
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Payload);
    assert_eq!(
        state(&scheduler, ids[2]),
        TaskState::Failed,
        "nothing was done"
    );
    let running = scheduler.retry_with(ids[0], repaired(9));
    assert_eq!(running.unwrap_err().kind(), ErrorKind::State);
    assert_eq!(scheduler.drain(), 2);
    for (id, n) in [(ids[0], 2), (ids[1], 3)] {
        let task = task(&scheduler, id);
        assert_eq!(task.result::<u32>().unwrap(), Some(n));
        assert_eq!((task.priority(), task.max_attempts()), (2, 7));
    }
    let failed = Filter::new().tag("x").state(TaskState::Failed);
    let bulk = scheduler.retry_all_with(&failed, repaired(4)).unwrap();
    assert_eq!((bulk.matched(), bulk.changed()), (2, 2));
    assert_eq!(scheduler.drain(), 2);
    assert_eq!(scheduler.count(&failed).unwrap(), 0);
    assert_eq!(state(&scheduler, ids[3]), TaskState::Completed);
}

#[test]
fn many_tasks_are_scheduled_in_one_call_and_answered_in_their_order() {
    let scheduler = Scheduler::in_memory().start().unwrap();
    let tasks: Vec<NewTask> = (0..500).map(|n| probe(n).after(DAY)).collect();
    let answers = scheduler.schedule_many(tasks.clone()).unwrap();
    assert!(answers.iter().all(|answer| answer.is_new()));
    for (n, answer) in (0..).zip(&answers) {
        let stored = task(&scheduler, answer.id());
        assert_eq!(stored.payload::<Probe>().unwrap().0, n);
    }
    let again = scheduler.schedule_many(tasks).unwrap();
    let existing = answers.iter().map(|new| Scheduled::Existing(new.id()));
    assert_eq!(again, Vec::from_iter(existing), "a clone is the same task");
    assert!(
        scheduler
            .schedule_many(Vec::<NewTask>::new())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_pending_task_can_be_changed_in_every_way() {
    let runs = Log::new();
    let log = runs.clone();
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |Probe(n), cx| {
            log.push((n, cx.max_attempts()));
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    let id = scheduler.schedule(probe(1).after(DAY)).unwrap().id();
    let edit = Edit::new().payload(&Probe(2)).priority(1).max_attempts(3);
    scheduler.edit(id, edit).unwrap();
    scheduler.reschedule(id, clock.now() + 2 * DAY).unwrap();
    assert_eq!(scheduler.advance(DAY), 0);
    scheduler.run_now(id).unwrap();
    assert_eq!(scheduler.drain(), 1);
    assert_eq!(runs.take(), [(2, 3)]);
    assert_eq!(scheduler.run_now(id).unwrap_err().kind(), ErrorKind::State);
    scheduler.delete(id).unwrap();
    assert!(scheduler.get(id).unwrap().is_none());
}

#[test]
fn bulk_calls_change_what_matches_and_tell_how_many() {
    let clock = clock();
    let mut scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(|_: Probe, _cx| Err(Failure::fatal("no")))
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    scheduler
        .schedule_many((0..700).map(|n| probe(n).after(DAY).tag("bulk")))
        .unwrap();
    scheduler
        .schedule_many((0..10).map(|n| NewTask::new(Other(n)).after(DAY)))
        .unwrap();
    let bulk = Filter::new().tag("bulk");
    let both = |done: punctual::Bulk| (done.matched(), done.changed());
    let at = clock.now() + 2 * DAY;
    assert_eq!(
        both(scheduler.reschedule_all(&bulk, at).unwrap()),
        (700, 700)
    );
    assert_eq!(
        both(scheduler.edit_all(&bulk, Edit::new().priority(1)).unwrap()),
        (700, 700)
    );
    assert_eq!(both(scheduler.run_now_all(&bulk).unwrap()), (700, 700));
    assert_eq!(scheduler.drain(), 700);
    assert_eq!(both(scheduler.retry_all(&bulk).unwrap()), (700, 700));
    assert_eq!(scheduler.drain(), 700);
    assert_eq!(
        both(scheduler.delete_all(&Filter::all()).unwrap()),
        (710, 700)
    );
    assert_eq!(scheduler.count(&Filter::all()).unwrap(), 10);
}

/// A start deadline ends the task in time, whether or not anything could have run it.
#[test]
fn a_start_deadline_is_kept_even_in_a_paused_queue() {
    let clock = clock();
    let calls = Log::new();
    let log = calls.clone();
    let mut scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(move |Probe(n), _cx| {
            log.push(n);
            Ok(Outcome::done())
        })
        .stepped(&clock)
        .unwrap();
    scheduler.advance(S);
    scheduler.pause("paused").unwrap();
    let within = 30 * S;
    let expired = [
        scheduler
            .schedule(probe(1).queue("paused").start_within(within))
            .unwrap()
            .id(),
        scheduler
            .schedule(probe(2).after(DAY).start_within(within))
            .unwrap()
            .id(),
        scheduler
            .schedule(NewTask::new(Other(3)).start_by(clock.now() + within))
            .unwrap()
            .id(),
    ];
    let started = scheduler
        .schedule(probe(4).start_within(within))
        .unwrap()
        .id();
    let due = clock.now() + within;
    scheduler.advance(within);
    for id in expired {
        assert_eq!(state(&scheduler, id), TaskState::Pending, "not yet");
    }
    scheduler.advance(S);
    for id in expired {
        let task = task(&scheduler, id);
        assert_eq!(
            (task.state(), task.error()),
            (TaskState::Failed, Some("expired"))
        );
        assert_eq!(
            task.finished_at(),
            Some(due + MICRO),
            "at the first microsecond after it"
        );
        assert_eq!(scheduler.history(id).unwrap()[0].end(), AttemptEnd::Expired);
    }
    assert_eq!(state(&scheduler, started), TaskState::Completed);
    assert_eq!(calls.take(), [4]);
}

/// A backup ends although others write without a pause.
#[test]
fn a_backup_under_load_is_made() {
    let (dir, path) = file();
    let client = Client::builder(&path)
        .durability(punctual::Durability::ProcessCrash)
        .open()
        .unwrap();
    client
        .schedule_many((0..5_000).map(|n| probe(n).metadata("k", "v".repeat(900))))
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let copy = dir.path().join("copy.db");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                client.schedule(probe(n)).unwrap();
            }
        });
        let result = client.sqlite().unwrap().backup(&copy);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        result.unwrap();
    });
    let copied = Client::open(&copy).unwrap().count(&Filter::all()).unwrap();
    assert!(copied >= 5_000);
}

#[test]
fn a_second_client_sees_what_the_first_does() {
    let (_dir, path) = file();
    let one = Client::open(&path).unwrap();
    let other = Client::open(&path).unwrap();
    let id = one
        .schedule(probe(1).queue("mail").after(DAY))
        .unwrap()
        .id();
    assert_eq!(other.count(&Filter::new().queue("mail")).unwrap(), 1);
    assert_eq!(
        other.list(&Filter::new().kind("probe")).unwrap().tasks()[0].id(),
        id
    );
    let bulk = other.cancel_all(&Filter::new().kind("probe")).unwrap();
    assert_eq!(bulk.changed(), 1);
    assert_eq!(state(&one, id), TaskState::Cancelled);
}

/// The end of a running attempt is kept when a handler schedules what comes next.
#[test]
fn a_handler_can_schedule_its_successor() {
    let scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(|Probe(n), cx| {
            if n > 0 {
                cx.client().schedule(probe(n - 1))?;
            }
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    scheduler.schedule(probe(50)).unwrap();
    let completed = Filter::new().state(TaskState::Completed);
    eventually("all have run", || {
        scheduler.count(&completed).unwrap() == 51
    });
    assert_eq!(scheduler.shutdown(LONG).unwrap().still_running(), 0);
}

/// P12: a start deadline that another client gave is kept, also in a paused queue.
#[test]
fn a_start_deadline_from_another_client_is_kept_in_time() {
    let (_dir, path) = file();
    let clock = clock();
    let mut scheduler = Scheduler::builder(&path)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock)
        .unwrap();
    scheduler.pause("default").unwrap();
    scheduler.drain();
    let other = punctual::Client::open(&path).unwrap();
    let by = clock.now() + punctual::chrono::TimeDelta::seconds(5);
    let id = other.schedule(probe(1).start_by(by)).unwrap().id();
    // It learns of it within a second, and then wakes for it.
    scheduler.advance(2 * S);
    scheduler.advance(4 * S);
    assert_eq!(task(&scheduler, id).state(), TaskState::Failed);
}

/// SQLite does not wait for the lock by which a fresh file gets its log.
#[test]
fn a_fresh_file_can_be_opened_by_many_at_once() {
    for _ in 0..10 {
        let (_dir, path) = file();
        std::thread::scope(|scope| {
            let open = || Client::open(&path).and_then(|client| client.schedule(probe(1)));
            let opened: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            for each in opened {
                each.join().unwrap().unwrap();
            }
        });
        let client = Client::open(&path).unwrap();
        assert_eq!(client.count(&Filter::all()).unwrap(), 6);
    }
}
