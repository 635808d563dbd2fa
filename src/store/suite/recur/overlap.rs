//! What becomes of slots while a task of the recurrence is live, and what follows from its end.

use super::*;

on_every_backend![
    p10_a_slot_is_skipped_while_a_task_is_live,
    p10_a_retried_task_is_live_again,
    p10_slots_wait_for_the_end_of_the_live_task,
    p10_a_slot_that_cancels_waits_until_the_task_has_ended,
    p10_a_pending_task_that_is_cancelled_makes_room_at_once,
    p10_every_end_of_a_live_task_makes_room,
    p10_what_waits_waits_on_in_a_pause_and_is_made_after_it,
    p10_no_slot_is_explained_twice_when_one_waited_through_missed_ones,
    p10_a_superseded_slot_does_not_count_for_max_count,
    p10_what_waits_drains_although_a_task_is_there_already,
    p10_a_call_for_a_paused_recurrence_with_waiting_slots_makes_a_task,
    p10_calls_for_a_paused_recurrence_do_not_overfill_the_buffer,
    p10_a_slot_that_waited_is_expected_to_complete_too,
    p10_an_old_task_s_retry_is_not_live_for_another_recurrence_of_its_name,
    p10_what_waits_drains_when_the_policy_is_allow,
    p10_much_that_waits_is_made_in_chunks_when_the_policy_is_allow,
    p10_a_call_that_waits_is_told_when_a_slot_takes_its_place,
    p10_a_slot_that_waited_and_was_dropped_is_told_as_superseded,
    p10_a_superseded_last_slot_does_not_end_the_recurrence,
];

on_shared![p10_a_crashed_task_makes_room,];

fn p10_a_slot_is_skipped_while_a_task_is_live(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    kit.fire_at(2);
    let claim = kit.claim_one();
    kit.fire_at(3);
    kit.settle(&claim, error());
    kit.fire_at(4);
    assert_eq!(
        kit.hours("a"),
        [1],
        "pending, running, and before its retry"
    );
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 5]);
}

fn p10_a_retried_task_is_live_again(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.change(claim.id, Action::Retry(Default::default()));
    kit.fire_at(2);
    assert_eq!(kit.hours("a"), [1]);
    kit.change(claim.id, Action::Cancel);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1, 3]);
}

fn p10_slots_wait_for_the_end_of_the_live_task(kit: &mut Kit) {
    kit.recur(hourly("one").overlap(Overlap::BufferOne));
    kit.recur(hourly("all").overlap(Overlap::BufferAll { max: 2 }));
    for hour in 1..=5 {
        kit.fire_at(hour);
    }
    assert_eq!((kit.hours("one"), kit.hours("all")), (vec![1], vec![1]));
    assert_eq!(kit.recurrence("one").waiting_count(), 1);
    assert_eq!(kit.recurrence("all").waiting_count(), 2);
    for _ in 0..3 {
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
    }
    assert_eq!(kit.hours("one"), [1, 2], "the first that waited");
    assert_eq!(kit.hours("all"), [1, 2, 3]);
    kit.fire_at(6);
    assert_eq!(kit.hours("all"), [1, 2, 3, 6]);
    assert_eq!(kit.recurrence("all").made_count(), 4);
}

fn p10_a_slot_that_cancels_waits_until_the_task_has_ended(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1], "its handler runs still");
    assert!(kit.task(claim.id).cancel_requested());
    kit.settle(&claim, error());
    assert_eq!(kit.state(claim.id), TaskState::Cancelled);
    assert_eq!(kit.hours("a"), [1, 3], "the newest");
}

fn p10_a_pending_task_that_is_cancelled_makes_room_at_once(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    kit.fire_at(2);
    let states = kit.recurrences_tasks("a").into_iter();
    let states: Vec<_> = states.map(|task| task.state()).collect();
    assert_eq!(states, [TaskState::Cancelled, TaskState::Pending]);
    assert_eq!(kit.hours("a"), [1, 2]);
    assert_eq!(kit.recurrence("a").waiting_count(), 0);
}

/// Whatever ends a task, the slot that waits for its end makes its task in the same transaction.
fn p10_every_end_of_a_live_task_makes_room(kit: &mut Kit) {
    type End = fn(&mut Kit, TaskId);
    let ends: [(&str, End); 6] = [
        ("completed", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, done());
        }),
        ("failed", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, returned(Err(Failure::fatal("no"))));
        }),
        ("cancelled by its handler", |kit, _| {
            let claim = kit.claim_one();
            kit.settle(&claim, returned(Ok(Outcome::cancel("no"))));
        }),
        ("cancelled before it ran", |kit, id| {
            kit.change(id, Action::Cancel);
        }),
        ("cancelled with others", |kit, _| {
            kit.change_matching(&Filter::all(), &Action::Cancel, None);
        }),
        ("expired", |kit, _| {
            kit.later(10 * S + MICRO);
            kit.apply(Op::Expire { limit: 10 });
        }),
    ];
    for (name, end) in ends {
        let task = NewTask::with_kind("probe", &1).start_within(2 * HOUR + 10 * S);
        let recurrence = Recurrence::new(name, task).every(HOUR).unwrap();
        kit.now = NOW;
        kit.recur(recurrence.overlap(Overlap::BufferOne));
        kit.fire_at(1);
        kit.fire_at(2);
        kit.now = NOW + 3 * HOUR;
        let id = kit.recurrences_tasks(name)[0].id();
        end(kit, id);
        assert!(kit.state(id).is_final(), "{name}");
        assert_eq!(kit.hours(name), [1, 2], "{name}");
        kit.act(name, RecurrenceAction::Remove);
        kit.change_matching(&Filter::all(), &Action::Cancel, None);
    }
}

fn p10_what_waits_waits_on_in_a_pause_and_is_made_after_it(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1]);
    kit.act("a", RecurrenceAction::Resume);
    assert_eq!(kit.hours("a"), [1, 2], "at once");
}

fn p10_a_crashed_task_makes_room(kit: &mut Kit) {
    let task = NewTask::with_kind("probe", &1).max_crashes(0);
    let recurrence = Recurrence::new("a", task).every(HOUR).unwrap();
    kit.recur(recurrence.overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    let claim = kit.claim_one();
    kit.crash(&[claim]);
    assert_eq!(kit.hours("a"), [1, 2]);
}

fn p10_no_slot_is_explained_twice_when_one_waited_through_missed_ones(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let _claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(6);
    kit.fire_at(7);
    let expected = [
        "1 made 1",
        "2 Superseded",
        "3 Missed",
        "4 Missed",
        "5 Missed",
        "6 Superseded",
        "7 waits",
    ];
    assert_eq!(explained(kit, "a", 8), expected);
}

fn p10_a_superseded_slot_does_not_count_for_max_count(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious).max_count(3));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    kit.fire_at(3);
    kit.settle(&claim, done());
    kit.fire_at(4);
    kit.fire_at(5);
    assert_eq!(kit.hours("a"), [1, 3, 4]);
}

fn p10_what_waits_drains_although_a_task_is_there_already(kit: &mut Kit) {
    let rule = Rule::at((1..=3).map(|hour| (NOW + HOUR * hour).to_utc())).unwrap();
    let all = Overlap::BufferAll { max: 9 };
    kit.recur(
        hourly("a")
            .rule(rule)
            .overlap(all)
            .missed(Missed::All { max: 9 }),
    );
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.trigger("a");
    kit.now = NOW + 4 * HOUR;
    kit.act("a", RecurrenceAction::Reset(NOW + HOUR));
    kit.fire();
    for _ in 0..9 {
        for claim in kit.claim(9) {
            kit.settle(&claim, done());
        }
    }
    assert_eq!(
        (kit.hours("a"), kit.recurrence("a").waiting_count()),
        (vec![1, 2, 3], 0)
    );
}

fn p10_a_call_for_a_paused_recurrence_with_waiting_slots_makes_a_task(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.act("a", RecurrenceAction::Pause);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    let triggered = kit.trigger("a");
    assert!(
        matches!(triggered, Triggered::Made(_)),
        "{triggered:?}, though nothing is live"
    );
}

fn p10_a_slot_that_waited_is_expected_to_complete_too(kit: &mut Kit) {
    let rule = Rule::at((1..=2).map(|hour| (NOW + HOUR * hour).to_utc())).unwrap();
    kit.recur(
        hourly("a")
            .rule(rule)
            .overlap(Overlap::BufferOne)
            .expect_within(2 * HOUR),
    );
    kit.fire_at(1);
    kit.fire_at(2);
    kit.later(HOUR / 4);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    assert_eq!(kit.hours("a"), [1, 2]);
    kit.fire_at(9);
    assert!(
        kit.recurrence("a").overdue_since().is_some(),
        "the second never completes"
    );
}

fn p10_an_old_task_s_retry_is_not_live_for_another_recurrence_of_its_name(kit: &mut Kit) {
    kit.recur(hourly("a"));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.settle(&claim, done());
    kit.act("a", RecurrenceAction::Remove);
    kit.recur(hourly("a").overlap(Overlap::Skip));
    kit.change(claim.id, Action::Retry(Default::default()));
    kit.fire_at(2);
    assert_eq!(kit.hours("a"), [1, 2]);
}

fn p10_what_waits_drains_when_the_policy_is_allow(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferAll { max: 9 }));
    kit.fire_at(1);
    kit.fire_at(2);
    kit.edit("a", RecurrenceEdit::new().overlap(Overlap::Allow));
    let mut running = kit.claim_one();
    for hour in 3..=20 {
        kit.fire_at(hour);
        let next = kit.claim_one();
        kit.settle(&running, done());
        running = next;
    }
    assert_eq!(kit.recurrence("a").waiting_count(), 0);
}

fn p10_much_that_waits_is_made_in_chunks_when_the_policy_is_allow(kit: &mut Kit) {
    let waits = Overlap::BufferAll { max: 1_000 };
    let all = Missed::All { max: 1_000 };
    kit.recur(hourly("a").missed(all).overlap(waits));
    kit.fire_at(701);
    assert_eq!(kit.recurrence("a").waiting_count(), 700);
    kit.recur(hourly("a").missed(all));
    assert_eq!(kit.store().lanes().recurrence_at, Some(kit.now), "at once");
    let mut waiting = vec![kit.recurrence("a").waiting_count()];
    while kit.apply(Op::Fire { limit: 100 }).done() > 0 {
        waiting.push(kit.recurrence("a").waiting_count());
    }
    assert_eq!(waiting, [700, 200, 0]);
    assert_eq!(kit.hours("a"), (1..=701).collect::<Vec<_>>());
    let next = Some((NOW + 702 * HOUR).to_utc());
    assert_eq!(kit.recurrence("a").next_slot(), next);
    assert_eq!(kit.recurrence("a").made_count(), 701);
}

fn p10_a_call_that_waits_is_told_when_a_slot_takes_its_place(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious));
    kit.fire_at(1);
    let claim = kit.claim_one();
    let Triggered::Waiting(id) = kit.trigger("a") else {
        panic!("it may wait");
    };
    let events = kit
        .store()
        .signals()
        .recurrence_subscriptions()
        .subscribe(99);
    kit.fire_at(2);
    kit.settle(&claim, done());
    let mut told = 0;
    while let Some(event) = events.try_next().event() {
        println!("{event:?}");
        told += usize::from(format!("{event:?}").contains(&id.to_string()));
    }
    assert!(told > 0 || kit.find(id).is_some(), "the call has vanished");
}

fn p10_a_slot_that_waited_and_was_dropped_is_told_as_superseded(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferAll { max: 9 }));
    for hour in 1..=3 {
        kit.fire_at(hour);
    }
    kit.edit("a", RecurrenceEdit::new().overlap(Overlap::CancelPrevious));
    kit.fire_at(4);
    // 1 was pending, so it is cancelled at once; 2 and 3 waited and are dropped; 4 is made.
    assert_eq!(kit.hours("a"), [1, 4]);
    let expected = ["1 made 1", "2 Superseded", "3 Superseded", "4 made 4"];
    assert_eq!(explained(kit, "a", 5)[..], expected);
    assert_eq!(kit.backfill("a", 2..4), (2, 0, 0));
}

fn p10_a_superseded_last_slot_does_not_end_the_recurrence(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::CancelPrevious).max_count(2));
    kit.fire_at(1);
    let claim = kit.claim_one();
    kit.fire_at(2);
    assert!(matches!(kit.trigger("a"), Triggered::Waiting(_)));
    kit.settle(&claim, done());
    kit.settle(&kit.claim_one(), done());
    assert_eq!(kit.recurrence("a").made_count(), 1);
    kit.fire_at(3);
    assert_eq!(kit.hours("a"), [1, 3], "of two tasks it has made one");
}

fn p10_calls_for_a_paused_recurrence_do_not_overfill_the_buffer(kit: &mut Kit) {
    kit.recur(hourly("a").overlap(Overlap::BufferOne));
    kit.fire_at(1);
    kit.act("a", RecurrenceAction::Pause);
    let told = [(); 3].map(|()| kit.trigger("a"));
    assert_eq!(kit.recurrence("a").waiting_count(), 1, "{told:?}");
}
