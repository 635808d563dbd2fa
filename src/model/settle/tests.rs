//! The rules of settling and of rescue, as tables.

use super::*;
use crate::model::outcome::Outcome;

const S: Duration = Duration::from_secs(1);
const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

pub(crate) fn claim(attempt: u32, crashes: u32, max_attempts: u32) -> Claim {
    Claim {
        fence: Fence {
            seq: 1,
            instance: 2,
            claim_no: 3,
        },
        id: TaskId::from_bytes([1; 16]),
        kind: "kind".into(),
        queue: "default".into(),
        priority: 5,
        scheduled_at: NOW,
        expires_at: None,
        attempt,
        crashes,
        undecoded: 0,
        max_attempts,
        class: Class::Plain,
        pool: Pool::Threads,
        options: None,
        last_error: None,
        payload: StoredPayload::Whole(b"null".to_vec()),
    }
}

fn returned(result: TaskResult) -> End {
    let asked = Asked::Not;
    End::Returned { result, asked }
}

fn pending(seconds: u32, attempt: u32) -> Change {
    Change::Pending {
        at: NOW + seconds * S,
        attempt,
    }
}

#[test]
fn every_end_of_an_attempt() {
    use AttemptEnd::{
        Cancelled, Completed, Failed, Interrupted, Panicked, Snoozed, TimedOut, Undecodable,
    };
    let error = || Failure::from("no");
    let late = |result| End::Returned {
        result,
        asked: Asked::TooLong,
    };
    let interrupted = |result| End::Returned {
        result,
        asked: Asked::Interrupted,
    };
    // (attempt, crashes, max_attempts), the end, the change, the history
    let table = [
        (
            (1, 0, 3),
            returned(Ok(Outcome::done())),
            Change::Completed(None),
            None,
        ),
        (
            (1, 0, 3),
            late(Ok(Outcome::done())),
            Change::Completed(None),
            Some(Completed),
        ),
        (
            (2, 0, 3),
            returned(Ok(Outcome::snooze(9 * S))),
            pending(9, 1),
            Some(Snoozed),
        ),
        (
            (1, 0, 3),
            returned(Ok(Outcome::cancel("x"))),
            Change::Cancelled,
            Some(Cancelled),
        ),
        (
            (1, 0, 3),
            returned(Err(error())),
            pending(10, 1),
            Some(Failed),
        ),
        (
            (2, 0, 3),
            late(Err(error())),
            pending(20, 2),
            Some(TimedOut),
        ),
        (
            (3, 0, 3),
            returned(Err(error())),
            Change::Failed,
            Some(Failed),
        ),
        // Two of three starts crashed: this is the first failure of three.
        (
            (3, 2, 3),
            returned(Err(error())),
            pending(10, 3),
            Some(Failed),
        ),
        (
            (5, 2, 3),
            returned(Err(error())),
            Change::Failed,
            Some(Failed),
        ),
        (
            (1, 0, 3),
            returned(Err(Failure::fatal("x"))),
            Change::Failed,
            Some(Failed),
        ),
        (
            (1, 0, 3),
            returned(Err(Failure::retry_after(7 * S, "x"))),
            pending(7, 1),
            Some(Failed),
        ),
        (
            (3, 0, 3),
            returned(Err(Failure::retry_after(7 * S, "x"))),
            Change::Failed,
            Some(Failed),
        ),
        // Interrupted by the scheduler: the attempt is given back.
        (
            (3, 0, 3),
            interrupted(Err(error())),
            pending(0, 2),
            Some(Interrupted),
        ),
        (
            (1, 0, 1),
            interrupted(Err(Failure::retry_after(7 * S, "x"))),
            pending(7, 0),
            Some(Interrupted),
        ),
        (
            (1, 0, 3),
            interrupted(Err(Failure::fatal("x"))),
            Change::Failed,
            Some(Interrupted),
        ),
        (
            (1, 0, 3),
            interrupted(Ok(Outcome::done())),
            Change::Completed(None),
            None,
        ),
        (
            (1, 0, 3),
            End::Panicked("boom".into()),
            pending(10, 1),
            Some(Panicked),
        ),
        (
            (1, 0, 3),
            End::Undecodable("bad".into()),
            Change::Undecoded { at: NOW + S },
            Some(Undecodable),
        ),
        (
            (1, 0, 3),
            End::Damaged("crc"),
            Change::Failed,
            Some(Undecodable),
        ),
        ((1, 0, 3), End::Unstarted, Change::GivenBack, None),
        ((1, 0, 3), End::CancelledUnstarted, Change::Cancelled, None),
    ];
    let policy = RetryPolicy::exponential(10 * S, 1000 * S).jitter(0.0);
    for ((attempt, crashes, max), end, change, record) in table {
        let shown = format!("{end:?} at {attempt}/{max} with {crashes} crashes");
        let settlement = settle(&claim(attempt, crashes, max), end, &policy, 0.5, NOW);
        assert_eq!(settlement.change(false), &change, "{shown}");
        assert_eq!(
            settlement.record.map(|record| record.end),
            record,
            "{shown}"
        );
    }
}

#[test]
fn p8_a_requested_cancel_wins_over_everything_but_completion() {
    let policy = RetryPolicy::default();
    let ends = [
        (returned(Ok(Outcome::done())), Change::Completed(None)),
        (returned(Ok(Outcome::snooze(S))), Change::Cancelled),
        (returned(Err("no".into())), Change::Cancelled),
        (returned(Err(Failure::fatal("no"))), Change::Cancelled),
        (End::Panicked("boom".into()), Change::Cancelled),
        (End::Unstarted, Change::Cancelled),
    ];
    for (end, change) in ends {
        let shown = format!("{end:?}");
        let settlement = settle(&claim(1, 0, 3), end, &policy, 0.5, NOW);
        assert_eq!(settlement.change(true), &change, "{shown}");
    }
}

#[test]
fn an_undecodable_payload_is_tried_again_for_an_hour_and_costs_no_attempt() {
    let mut claim = claim(1, 0, 1);
    let mut now = NOW;
    let end = || End::Undecodable("bad".into());
    let settled = |claim: &Claim, now| settle(claim, end(), &RetryPolicy::default(), 0.5, now);
    for (before, seconds) in [1, 10, 60, 600, 3_600].into_iter().enumerate() {
        claim.undecoded = before as u32;
        let settlement = settled(&claim, now);
        let at = now + seconds * S;
        assert_eq!(settlement.change(false), &Change::Undecoded { at });
        assert_eq!(settlement.change(true), &Change::Cancelled);
        assert!(settlement.is_unstarted);
        now = at;
    }
    for before in [5, 6, u32::MAX] {
        claim.undecoded = before;
        let settlement = settled(&claim, now);
        assert_eq!(settlement.change(false), &Change::Failed);
        assert!(settlement.is_unstarted, "nor does this one count");
    }
}

#[test]
fn the_task_s_own_policy_wins_over_the_handler_s() {
    let mut claim = claim(1, 0, 3);
    claim.options = Some(Box::new(Options {
        retry: Some(RetryPolicy::fixed(S)),
        ..Options::default()
    }));
    let handler = RetryPolicy::fixed(9 * S);
    let settlement = settle(&claim, returned(Err("no".into())), &handler, 0.5, NOW);
    assert_eq!(settlement.change(false), &pending(1, 1));
}

#[test]
fn p5_whatever_ends_an_attempt_of_a_task_delivered_at_most_once_is_final() {
    let once = |attempt| Claim {
        class: Class::Once,
        ..claim(attempt, 0, 20)
    };
    let ends = [
        (returned(Ok(Outcome::done())), Change::Completed(None)),
        (returned(Ok(Outcome::snooze(S))), Change::Failed),
        (returned(Ok(Outcome::cancel("x"))), Change::Cancelled),
        (returned(Err("no".into())), Change::Failed),
        (returned(Err(Failure::retry_after(S, "x"))), Change::Failed),
        (
            End::Returned {
                result: Err("no".into()),
                asked: Asked::Interrupted,
            },
            Change::Failed,
        ),
        (End::Panicked("boom".into()), Change::Failed),
        (End::Damaged("crc"), Change::Failed),
        // In these two cases no handler was called.
        (
            End::Undecodable("bad".into()),
            Change::Undecoded { at: NOW + S },
        ),
        (End::Unstarted, Change::GivenBack),
    ];
    for (end, change) in ends {
        let shown = format!("{end:?}");
        let settlement = settle(&once(1), end, &RetryPolicy::default(), 0.5, NOW);
        assert_eq!(settlement.change(false), &change, "{shown}");
    }
    let orphan = |started, cancel_requested| Orphan {
        seq: 7,
        crashes: 0,
        blamed: 0,
        max_crashes: None,
        class: Class::Once,
        cancel_requested,
        started,
        death: ALONE,
    };
    assert_eq!(rescue(orphan(true, false)), Rescue::Interrupted);
    assert_eq!(rescue(orphan(false, false)), Rescue::GiveBack);
    assert_eq!(rescue(orphan(true, true)), Rescue::Cancelled);
}

/// A crash of a process that ran nothing else.
const ALONE: Death = crash(1, true);

const fn crash(count: u64, is_only_cause: bool) -> Death {
    Death::Crash(Running {
        count,
        only_cause: if is_only_cause { Some(7) } else { Some(8) },
    })
}

#[test]
fn p4_a_crash_is_forgiven_until_there_were_too_many() {
    let orphan = |blamed, started, cancel_requested| Orphan {
        seq: 7,
        crashes: 0,
        blamed,
        max_crashes: None,
        class: Class::Plain,
        cancel_requested,
        started,
        death: ALONE,
    };
    let without_crashes = |orphan| Orphan {
        max_crashes: Some(0),
        ..orphan
    };
    // After a loss of power, for instance.
    let innocent = |blamed| Orphan {
        death: Death::Unknown { count: 8 },
        ..orphan(blamed, true, false)
    };
    let suspect = |level, is_blamed| Rescue::Suspect {
        level: Level::from_code(level).unwrap(),
        is_blamed,
    };
    let table = [
        (orphan(0, false, false), Rescue::GiveBack),
        (orphan(0, true, false), suspect(0, true)),
        (orphan(2, true, false), suspect(0, true)),
        (orphan(3, true, false), Rescue::Crashed { is_blamed: true }),
        (orphan(3, false, false), Rescue::GiveBack),
        (orphan(0, true, true), Rescue::Cancelled),
        (orphan(0, false, true), Rescue::Cancelled),
        (
            without_crashes(orphan(0, true, false)),
            Rescue::Crashed { is_blamed: true },
        ),
        (innocent(0), Rescue::Innocent),
        (innocent(3), Rescue::Innocent),
        (
            without_crashes(innocent(0)),
            Rescue::Crashed { is_blamed: false },
        ),
    ];
    for (orphan, expected) in table {
        assert_eq!(rescue(orphan), expected, "{orphan:?}");
    }
    let of = |class, death| Orphan {
        class,
        death,
        ..orphan(3, true, false)
    };
    let level = |level| Class::Suspect(Level::from_code(level).unwrap());
    let table = [
        (of(Class::Plain, crash(2, false)), suspect(0, false)),
        (of(Class::Plain, crash(5_000, false)), suspect(11, false)),
        (of(level(3), crash(64, false)), suspect(2, false)),
        (of(level(3), crash(4, false)), suspect(1, false)),
        (of(level(0), crash(64, false)), suspect(-1, false)),
        (
            of(level(-1), crash(64, true)),
            Rescue::Crashed { is_blamed: true },
        ),
        (
            without_crashes(of(level(4), crash(64, false))),
            Rescue::Crashed { is_blamed: false },
        ),
        (of(level(4), Death::Unknown { count: 8 }), Rescue::Innocent),
        (
            of(level(4), Death::Unknown { count: 1 }),
            Rescue::Crashed { is_blamed: true },
        ),
    ];
    for (orphan, expected) in table {
        assert_eq!(rescue(orphan), expected, "{orphan:?}");
    }
    let third = |death| Orphan {
        crashes: 2,
        ..of(Class::Plain, death)
    };
    assert_eq!(
        rescue(third(Death::Unknown { count: 8 })),
        suspect(1, false)
    );
    assert_eq!(rescue(third(Death::Copied)), Rescue::Innocent);
    let again = Orphan {
        blamed: 2,
        ..of(level(-2), crash(64, true))
    };
    assert_eq!(
        rescue(again),
        suspect(-2, true),
        "no longer trial is needed"
    );
}
