//! Queues: fairness, caps, pauses, and several instances on one file.

use punctual::{EventKind, Filter, Outcome, Scheduler, TaskState};

use crate::kit::{
    DAY, Gate, Log, MS, OpenOnDrop, Other, Probe, S, clock, end_of, eventually, file, gate,
    hold_up, probe, state,
};

/// A queue with a long backlog does not starve another: they take turns by starts.
#[test]
fn a_long_queue_does_not_starve_a_short_one() {
    let starts = Log::new();
    let log = starts.clone();
    let mut scheduler = Scheduler::in_memory()
        .workers(2)
        .handler_fn(move |_: Probe, cx| {
            log.push(cx.queue().to_owned());
            Ok(Outcome::done())
        })
        .stepped(&clock())
        .unwrap();
    scheduler
        .schedule_many((0..5_000).map(|n| probe(n).queue("long").priority(0)))
        .unwrap();
    // The long one has had all the workers for a while.
    for _ in 0..300 {
        scheduler.step();
    }
    starts.take();
    scheduler
        .schedule_many((0..20).map(|n| probe(n).queue("short").priority(9)))
        .unwrap();
    for _ in 0..1_500 {
        scheduler.step();
    }
    let starts = starts.take();
    let last = starts.iter().rposition(|queue| queue == "short").unwrap();
    let count = starts.iter().filter(|queue| *queue == "short").count();
    assert_eq!(count, 20);
    // What was claimed ahead comes first, up to 1,024 of the quickest; from then on every other start is the short queue's.
    assert!(
        last < 1_100,
        "the short queue was through after {last} starts"
    );
}

/// A cap holds however many workers are free, and the other queues get them.
#[test]
fn a_cap_is_never_exceeded() {
    let (capped, free) = (Gate::default(), Gate::default());
    let _open = (OpenOnDrop(capped.clone()), OpenOnDrop(free.clone()));
    let (at_capped, at_free) = (capped.clone(), free.clone());
    let scheduler = Scheduler::in_memory()
        .workers(6)
        .queue("capped", 2)
        .handler_fn(move |_: Probe, cx| {
            match cx.queue() {
                "capped" => at_capped.pass(),
                _ => at_free.pass(),
            }
            Ok(Outcome::done())
        })
        .start()
        .unwrap();
    let ids: Vec<_> = (0..30)
        .map(|n| scheduler.schedule(probe(n).queue("capped")).unwrap().id())
        .collect();
    capped.await_waiting(2);
    eventually("the rest of the queue waits", || {
        scheduler.stats().unwrap().count(TaskState::Pending) == 28
    });
    assert_eq!(capped.most(), 2);
    scheduler.schedule_many((0..4).map(probe)).unwrap();
    free.await_waiting(4);
    assert_eq!(capped.most(), 2);
    assert_eq!(scheduler.health().busy(), 6);
    free.open();
    capped.open();
    for id in ids {
        assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    }
    assert!(capped.most() <= 2, "{} at once", capped.most());
}

/// A scheduler that was given some queues leaves the others to others.
#[test]
fn only_the_queues_that_were_named_are_run() {
    let mut scheduler = Scheduler::in_memory()
        .queue("mine", 3)
        .only_queues()
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let mine = scheduler.schedule(probe(1).queue("mine")).unwrap().id();
    let other = scheduler.schedule(probe(2)).unwrap().id();
    scheduler.advance(DAY / 2);
    assert_eq!(state(&scheduler, mine), TaskState::Completed);
    assert_eq!(state(&scheduler, other), TaskState::Pending);
}

/// A paused queue starts nothing, other queues go on, and the pause survives a restart.
#[test]
fn a_pause_holds_until_it_is_lifted_even_over_a_restart() {
    let (_dir, path) = file();
    let clock = clock();
    let open = || {
        Scheduler::builder(&path)
            .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
            .stepped(&clock)
            .unwrap()
    };
    let mut scheduler = open();
    scheduler.pause("mail").unwrap();
    let paused = scheduler.schedule(probe(1).queue("mail")).unwrap().id();
    let other = scheduler.schedule(probe(2)).unwrap().id();
    scheduler.advance(100 * S);
    assert_eq!(state(&scheduler, paused), TaskState::Pending);
    assert_eq!(state(&scheduler, other), TaskState::Completed);
    assert_eq!(scheduler.health().paused_queues(), ["mail"]);
    drop(scheduler);
    let mut scheduler = open();
    assert_eq!(scheduler.health().paused_queues(), ["mail"]);
    assert_eq!(scheduler.advance(100 * S), 0);
    scheduler.resume("mail").unwrap();
    assert_eq!(scheduler.drain(), 1);
    assert!(scheduler.health().paused_queues().is_empty());
}

/// A limit for all processes is kept in the file: the last one that was given holds, whoever opens it.
#[test]
fn a_global_limit_holds_until_another_is_given_even_over_a_restart() {
    let (_dir, path) = file();
    let gate = Gate::default();
    let open = |limit: Option<usize>| {
        let builder = Scheduler::builder(&path)
            .workers(6)
            .handler_fn(gate.handler());
        match limit {
            Some(limit) => builder.global_limit("mail", limit),
            None => builder,
        }
        .start()
        .unwrap()
    };
    let mail = |limit| vec![("mail".to_owned(), limit)];
    drop(open(Some(1)));
    assert_eq!(open(None).health().global_limits(), mail(1));
    let (first, second) = (open(Some(3)), open(Some(2)));
    let _open = OpenOnDrop(gate.clone());
    first
        .schedule_many((0..8).map(|n| probe(n).queue("mail")))
        .unwrap();
    gate.await_waiting(2);
    first.schedule(Other(1)).unwrap();
    assert_eq!(
        (gate.most(), second.health().global_limits()),
        (2, &mail(2)[..])
    );
    second.set_global_limit("mail", None).unwrap();
    gate.await_waiting(8);
    assert!(second.health().global_limits().is_empty());
}

/// What was claimed and not started when its queue was paused is given back and costs nothing.
#[test]
fn a_pause_gives_back_what_waits_for_a_worker() {
    let mut scheduler = Scheduler::in_memory()
        .workers(4)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let ids: Vec<_> = (0..4)
        .map(|n| scheduler.schedule(probe(n)).unwrap().id())
        .collect();
    assert!(scheduler.step());
    assert_eq!(state(&scheduler, ids[3]), TaskState::Running);
    scheduler.pause("default").unwrap();
    assert_eq!(scheduler.drain(), 0);
    for id in &ids[1..] {
        let task = scheduler.get(*id).unwrap().unwrap();
        assert_eq!((task.state(), task.attempt()), (TaskState::Pending, 0));
        assert_eq!(task.started_at(), None);
    }
    scheduler.resume("default").unwrap();
    assert_eq!(scheduler.drain(), 3);
}

/// What could be claimed ahead is left alone while all workers are busy for long: claiming it and giving it back over and
/// over would cost a processor, and write without end.
#[test]
fn tasks_that_wait_for_busy_workers_cost_nothing() {
    let (gate, _open) = gate();
    let scheduler = Scheduler::in_memory()
        .workers(1)
        .handler_fn(gate.handler())
        .handler_fn(|_: Other, _cx| Ok(Outcome::done()))
        .start()
        .unwrap();
    let quick = scheduler.schedule(Other(0)).unwrap().id();
    end_of(&scheduler, quick);
    scheduler.schedule(probe(1)).unwrap();
    gate.await_waiting(1);
    let events = scheduler.events_with_capacity(10_000);
    let ids = scheduler.schedule_many((0..10).map(Other)).unwrap();
    hold_up(300 * MS);
    let given_back = std::iter::from_fn(|| events.try_next().event())
        .filter(|event| event.kind() == EventKind::GivenBack)
        .count();
    assert!(given_back <= 10, "given back {given_back} times");
    gate.open();
    for id in ids {
        assert_eq!(end_of(&scheduler, id.id()).attempt(), 1);
    }
}

/// Names in scripts that write vowels as marks were refused, and so was an é that was typed on some systems.
#[test]
fn names_are_whatever_can_be_printed() {
    let mut scheduler = Scheduler::in_memory()
        .queue("हिन्दी", 1)
        .handler_fn(|_: Probe, _cx| Ok(Outcome::done()))
        .stepped(&clock())
        .unwrap();
    let names = [
        "हिन्दी",
        "cafe\u{301}",
        "café",
        "½",
        "Bob's \"mail\"",
        "日本 語",
        "🚀",
    ];
    let mut ids = Vec::new();
    for name in names {
        let task = probe(1).queue(name).tag(name).partition(name);
        ids.push(scheduler.schedule(task).unwrap().id());
    }
    scheduler.pause("café").unwrap();
    assert_eq!(scheduler.drain(), names.len() - 1);
    for (name, id) in names.iter().zip(&ids) {
        for filter in [
            Filter::new().queue(*name),
            Filter::new().tag(*name),
            Filter::new().partition(*name),
        ] {
            let page = scheduler.list(&filter).unwrap();
            let found: Vec<_> = page.tasks().iter().map(|task| task.id()).collect();
            assert_eq!(found, [*id], "{name}: by their bytes");
        }
    }
    assert_eq!(state(&scheduler, ids[2]), TaskState::Pending);
}
