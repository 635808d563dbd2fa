//! What becomes of slots that could not be kept: missed ones, and those that come while the task before is still live.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most slots that a policy may keep.
pub(crate) const MAX_KEPT: u32 = 10_000;

/// What becomes of missed slots: those for which it is too late by more than the [`grace`](crate::Recurrence::grace), because no
/// process had the file open or the clock was set forward, and those overtaken by a later slot that is due as well.
///
/// A missed slot that is older than the [`window`](crate::Recurrence::window) makes no task in any case. Slots that make none
/// are recorded as skipped.
///
/// # Example
///
/// ```
/// use punctual::{Missed, NewTask, Overlap, Recurrence};
///
/// // An invoice for each day, also for the days on which the program did not run.
/// let invoices = Recurrence::new("invoices", NewTask::with_kind("invoice", &()))
///     .cron("0 6 * * *")?
///     .missed(Missed::All { max: 100 })
///     .overlap(Overlap::Allow);
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Missed {
    /// None makes a task.
    Skip,
    /// Of all that are due, the latest makes a task. The default.
    #[default]
    Latest,
    /// The earliest makes a task; and so does the latest of all that are due, if it is on time.
    Earliest,
    /// Each makes a task, up to the latest `max`: 1 to 10,000. The overlap policy must be able to hold several, so it may be
    /// neither [`Overlap::Skip`] nor [`Overlap::CancelPrevious`]. What a smaller buffer cannot hold is skipped as
    /// [`SkipReason::BufferFull`].
    All {
        /// The most tasks that are made up for.
        max: u32,
    },
}

/// What becomes of a slot while a task of the same recurrence is live: pending, running, or waiting for a retry or after a
/// snooze.
///
/// # Example
///
/// ```
/// use punctual::{NewTask, Overlap, Recurrence};
///
/// // Never two at once, and none lost.
/// let sync = Recurrence::new("sync", NewTask::with_kind("sync", &()))
///     .cron("*/5 * * * *")?
///     .overlap(Overlap::BufferAll { max: 100 });
/// # Ok::<(), punctual::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overlap {
    /// It makes its task all the same.
    Allow,
    /// It is skipped. The default.
    #[default]
    Skip,
    /// It waits and makes its task when the live one has ended. One slot waits at most; while it does, others are skipped.
    BufferOne,
    /// The same, for up to `max` slots, in their order: 1 to 10,000.
    BufferAll {
        /// The most slots that wait.
        max: u32,
    },
    /// The live task is cancelled. The slot makes its task once that has really ended; of several slots that come meanwhile, the
    /// newest.
    CancelPrevious,
}

impl Overlap {
    /// What becomes of a slot, given whether a task of the recurrence is live and how many slots wait.
    pub(crate) fn place(self, is_live: bool, buffered: u64) -> Place {
        if self == Self::Allow || !is_live && buffered == 0 {
            return Place::Make;
        }
        match self {
            Self::Allow => Place::Make,
            Self::Skip => Place::Skip(SkipReason::Overlap),
            Self::BufferOne if buffered == 0 => Place::Buffer,
            Self::BufferAll { max } if buffered < u64::from(max) => Place::Buffer,
            Self::BufferOne | Self::BufferAll { .. } => Place::Skip(SkipReason::BufferFull),
            Self::CancelPrevious => Place::Cancel,
        }
    }
}

/// What becomes of a slot that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It makes a task now.
    Make,
    /// It waits until the live task has ended.
    Buffer,
    /// The live task is cancelled, and the slot waits for its end in the place of any other.
    Cancel,
    Skip(SkipReason),
}

/// Why a slot made no task.
///
/// # Example
///
/// ```
/// use punctual::SkipReason;
///
/// assert_eq!(SkipReason::Overlap.to_string(), "the task before was still live");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// It was missed, and the [`Missed`] policy did not choose it.
    Missed,
    /// It was missed, and older than the window.
    TooOld,
    /// A task of the recurrence was still live.
    Overlap,
    /// As many slots as may wait were waiting already.
    BufferFull,
    /// It waited, and a newer slot took its place.
    Superseded,
    /// The recurrence was paused.
    Paused,
}

impl SkipReason {
    pub(crate) const ALL: [Self; 6] = [
        Self::Missed,
        Self::TooOld,
        Self::Overlap,
        Self::BufferFull,
        Self::Superseded,
        Self::Paused,
    ];

    /// The number in the store.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Missed => 10,
            Self::TooOld => 11,
            Self::Overlap => 12,
            Self::BufferFull => 13,
            Self::Superseded => 14,
            Self::Paused => 15,
        }
    }
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missed => "it was missed",
            Self::TooOld => "it was missed, and too old",
            Self::Overlap => "the task before was still live",
            Self::BufferFull => "too many slots were waiting",
            Self::Superseded => "a newer slot took its place",
            Self::Paused => "the recurrence was paused",
        })
    }
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It made a task, or will when the slots before it have: while it waits it is in the buffer.
    Made,
    Skipped(SkipReason),
}

impl Fate {
    /// The number in the store.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Made => 0,
            Self::Skipped(reason) => reason.code(),
        }
    }

    /// An unknown number is read as a slot that made a task: it must not make another.
    pub(crate) fn from_code(code: i64) -> Self {
        let reason = SkipReason::ALL.into_iter().find(|each| each.code() == code);
        reason.map_or(Self::Made, Self::Skipped)
    }
}

/// Checks that the policies fit together.
///
/// # Errors
///
/// `Invalid` if a maximum is 0 or over 10,000, or if all missed slots are to make tasks but may not wait for each other.
pub(crate) fn check(missed: Missed, overlap: Overlap) -> Result<()> {
    let maxima = [
        match missed {
            Missed::All { max } => Some(("missed", max)),
            _ => None,
        },
        match overlap {
            Overlap::BufferAll { max } => Some(("overlap", max)),
            _ => None,
        },
    ];
    for (what, max) in maxima.into_iter().flatten() {
        if !(1..=MAX_KEPT).contains(&max) {
            return Err(Error::invalid(format!(
                "{what}: a maximum of {max} is not between 1 and {MAX_KEPT}"
            )));
        }
    }
    let cannot_hold = matches!(overlap, Overlap::Skip | Overlap::CancelPrevious);
    if matches!(missed, Missed::All { .. }) && cannot_hold {
        return Err(Error::invalid(format!(
            "missed: all slots are to be made up for, but overlap {overlap:?} keeps only one of those that come together"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_slot_beside_a_live_task_is_placed_by_the_policy() {
        use Place::{Buffer, Cancel, Make, Skip};
        let full = Skip(SkipReason::BufferFull);
        let all = Overlap::BufferAll { max: 2 };
        // Alone; beside a live task; with one waiting; with two.
        let table = [
            (Overlap::Allow, [Make, Make, Make, Make]),
            (
                Overlap::Skip,
                [
                    Make,
                    Skip(SkipReason::Overlap),
                    Skip(SkipReason::Overlap),
                    Skip(SkipReason::Overlap),
                ],
            ),
            (Overlap::BufferOne, [Make, Buffer, full, full]),
            (all, [Make, Buffer, Buffer, full]),
            (Overlap::CancelPrevious, [Make, Cancel, Cancel, Cancel]),
        ];
        for (overlap, expected) in table {
            let cases = [(false, 0), (true, 0), (true, 1), (true, 2)];
            assert_eq!(
                cases.map(|(live, waiting)| overlap.place(live, waiting)),
                expected,
                "{overlap:?}"
            );
        }
        assert_eq!(
            Overlap::BufferOne.place(false, 1),
            full,
            "what waits comes first"
        );
    }

    #[test]
    fn fates_survive_storage() {
        for fate in SkipReason::ALL
            .map(Fate::Skipped)
            .into_iter()
            .chain([Fate::Made])
        {
            assert_eq!(Fate::from_code(fate.code()), fate);
        }
    }

    #[test]
    fn policies_that_contradict_each_other_are_refused() {
        let all = Missed::All { max: 5 };
        assert!(check(all, Overlap::Skip).is_err());
        assert!(check(all, Overlap::CancelPrevious).is_err());
        assert!(check(all, Overlap::BufferOne).is_ok());
        assert!(check(Missed::All { max: 0 }, Overlap::Allow).is_err());
        assert!(check(Missed::Latest, Overlap::BufferAll { max: 10_001 }).is_err());
        assert!(check(Missed::default(), Overlap::default()).is_ok());
    }
}
