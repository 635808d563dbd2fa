//! Time in recurrences: zones, changes of clocks, missed slots, overlap. A page to read; there is nothing in this module.
//!
//! A [`Recurrence`](crate::Recurrence) is a row of the file: a name, a [`Rule`](crate::Rule), a task like which others are made,
//! and policies. A *slot* is one nominal instant of the rule. When a slot is due, one transaction makes its task and moves the
//! recurrence on to the next slot. Whichever scheduler has the file open and comes first does so; who comes second finds it
//! moved. So a slot makes at most one task, and a crash in between loses none.
//!
//! # Which instants are slots
//!
//! A cron expression means civil times in a time zone of the IANA database: UTC unless one is named, never that of the machine.
//! The database is compiled in. An interval is counted from an instant, in elapsed time, and never drifts.
//!
//! When clocks change, it matters what an expression means. One whose minute or hour begins with `*` means spans of elapsed time:
//! `*/15 * * * *` runs every 15 minutes through any change. All others mean times of the day. This is the rule of Vixie cron.
//!
//! | in Berlin, where clocks go from 2:00 to 3:00 in March and from 3:00 back to 2:00 in October | slots of that night |
//! |---|---|
//! | `30 2 * * *` in March | 3:00, the end of the gap ([`Gap::RunAfter`](crate::Gap::RunAfter)), or none ([`Gap::Skip`](crate::Gap::Skip)) |
//! | `0,15,30,45 2 * * *` in March | 3:00, once for all four |
//! | `30 2,3 * * *` in March | 3:00 and 3:30 |
//! | `0 2,3 * * *` in March | 3:00, once for both |
//! | `30 2 * * *` in October | the first 2:30 ([`Fold::First`](crate::Fold::First)), the second, or both |
//! | `*/30 * * * *` in March | 1:30, 3:00, 3:30 |
//! | `*/30 * * * *` in October | 2:00, 2:30, 2:00, 2:30 |
//! | every hour ([`Rule::every`](crate::Rule::every)) | every 3,600 seconds |
//!
//! If both the day of the month and the day of the week are restricted, a day matches by **either**: `0 0 13 * FRI` is each 13th
//! and each Friday. If one of the two begins with `*`, both have to match: `0 0 */2 * MON` is each Monday with an odd date.
//!
//! Other libraries answer otherwise in places. The vectors of the tests have every difference from two of them; away from changes of
//! clocks, and without the signs and ranges below, there is none:
//!
//! | | here, and in Vixie cron if it has it | croniter | APScheduler |
//! |---|---|---|---|
//! | a time of the day in a gap | at its end, once | dropped, or later by the length of the gap | later by the length of the gap |
//! | a skipped slot of a rule that begins with `*` | none | after the gap | after the gap |
//! | a time of the day that comes twice | the first, unless [`Fold`](crate::Fold) says else | both | both |
//! | a slot on a day that a zone skipped | one, at the end of the gap | one | none |
//! | `31W` in a month of 30 days | none | the last working day | (has no `W`) |
//! | `0 0 1 * 5#2`: one day field with `#`, `L` or `W` | either field | the field with the sign alone | (has no `#`) |
//! | `5-5` | 5 | every value | 5 |
//! | `5/15`, `22-2`, `FRI-MON` | refused | from 5; over the end | from 5; refused |
//!
//! When a program is built with a newer time zone database, the next slots are found anew. What is a time of the day goes on after
//! the civil time up to which slots of its zone were decided, and everything else after the last instant: so no civil time comes
//! twice, none is lost, and one that is gone by now is due at once. Where it has moved to an instant that has its task, that is its
//! task. If civil times have moved, the record of earlier slots, which has their former instants, is forgotten. A process with an
//! older database leaves those recurrences to others, and [`Health::newer_time_zones`](crate::Health::newer_time_zones) says so.
//!
//! # When a slot is due
//!
//! | the slot is | what happens |
//! |---|---|
//! | due, at most [`grace`](crate::Recurrence::grace) (60 s) late, and no later slot is due | it is on time, and gets its place (below) |
//! | due, and later than that, or overtaken by a later slot that is due as well | it is *missed*: [`Missed`](crate::Missed) decides |
//! | missed, and older than the [`window`](crate::Recurrence::window) (365 days) | skipped |
//! | due while the recurrence is paused | skipped, when it is resumed |
//!
//! | which of several due slots make tasks | if the latest of them is on time | if all are late |
//! |---|---|---|
//! | [`Missed::Skip`](crate::Missed::Skip) | the latest | none |
//! | [`Missed::Latest`](crate::Missed::Latest), the default | the latest | the latest |
//! | [`Missed::Earliest`](crate::Missed::Earliest) | the earliest, and the latest | the earliest |
//! | [`Missed::All`](crate::Missed::All) | the latest, and up to `max` before it | up to `max` |
//!
//! A slot that is to make a task gets its place by [`Overlap`](crate::Overlap). A task is *live* while it is pending, runs, or
//! waits for a retry or after a snooze:
//!
//! | | no task of the recurrence is live | one is |
//! |---|---|---|
//! | [`Overlap::Allow`](crate::Overlap::Allow) | it makes its task | it makes its task |
//! | [`Overlap::Skip`](crate::Overlap::Skip), the default | it makes its task | it is skipped |
//! | [`Overlap::BufferOne`](crate::Overlap::BufferOne) | it makes its task | it waits, if none waits; else it is skipped |
//! | [`Overlap::BufferAll`](crate::Overlap::BufferAll) | it makes its task | it waits, if fewer than `max` wait; else it is skipped |
//! | [`Overlap::CancelPrevious`](crate::Overlap::CancelPrevious) | it makes its task | that is cancelled; the newest slot waits for its end |
//!
//! The end of the live task, whatever it is, makes the task of the next slot that waits, in the same transaction. What was skipped
//! is recorded: [`explain`](crate::Recurrences::explain) tells the fate of each slot, and an
//! [event](crate::RecurrenceEventKind::Skipped) tells it at once.
//!
//! # When the clock is set
//!
//! | the clock | what happens |
//! |---|---|
//! | is set forward, or the machine slept | slots in between are missed |
//! | is set back | what was decided stays decided: no slot comes again |
//! | was far ahead, and came back | nothing comes until it is there again: [`Health::recurrences_ahead`](crate::Health::recurrences_ahead) says so, and [`reset`](crate::Recurrences::reset) goes back |
//!
//! # Which task a slot makes
//!
//! Its `scheduled_at` is the slot, plus the [`jitter`](crate::Recurrence::jitter) if there is one.
//! [`TaskContext::slot`](crate::TaskContext::slot) is the nominal instant in any case. Its id is drawn from the file, the recurrence and the
//! slot: if a power cut takes back the transaction that made it, it is made again with the same id.
//!
//! # Example
//!
//! ```
//! use punctual::{Missed, NewTask, Overlap, Recurrence, Rule, Scheduler, SlotFate};
//! use std::time::Duration;
//!
//! let scheduler = Scheduler::in_memory().start()?;
//! // At nine on working days, but not at Christmas; each day counts, also those on which nothing ran.
//! let rule = Rule::cron("0 9 * * MON-FRI")?
//!     .time_zone("Europe/Berlin")?
//!     .except_dates(["2026-12-24".parse()?, "2026-12-25".parse()?])?;
//! let dunning = Recurrence::new("dunning", NewTask::with_kind("dun", &()).queue("letters"))
//!     .rule(rule)
//!     .missed(Missed::All { max: 30 })
//!     .overlap(Overlap::BufferAll { max: 30 })
//!     .jitter(Duration::from_secs(300))
//!     .expect_within(Duration::from_secs(4 * 3600));
//! scheduler.recur(dunning)?;
//! let week = "2030-01-07T00:00:00Z".parse()?.."2030-01-14T00:00:00Z".parse()?;
//! let explained = scheduler.recurrences().explain("dunning", week)?;
//! assert_eq!(explained.slots().len(), 5);
//! assert_eq!(explained.slots()[0].fate(), SlotFate::Upcoming);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
