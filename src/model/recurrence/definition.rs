//! A recurrence as it is stored: when its slots are, what tasks they make, and what becomes of those that cannot be kept.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::policy::{self, Missed, Overlap};
use super::rule::Rule;
use crate::error::{Error, Result};
use crate::id::TaskId;
use crate::model::delivery::Delivery;
use crate::model::limits::check_span;
use crate::model::new_task::Insert;
use crate::model::task::{Options, SlotOf};
use crate::time::Timestamp;

/// How late a slot may be and still count as on time, if nothing else is said.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(60);
/// How old a missed slot may be and still make a task, if nothing else is said: a year.
pub(crate) const DEFAULT_WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);

/// A recurrence as it is stored, except for its payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) rule: Rule,
    /// Whether an interval is counted from when the recurrence was first stored.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) floats: bool,
    #[serde(default)]
    pub(crate) missed: Missed,
    #[serde(default = "default_grace")]
    pub(crate) grace: Duration,
    #[serde(default = "default_window")]
    pub(crate) window: Duration,
    #[serde(default)]
    pub(crate) overlap: Overlap,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jitter: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pause_after_failures: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expect_within: Option<Duration>,
    pub(crate) task: Template,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn default_grace() -> Duration {
    DEFAULT_GRACE
}

fn default_window() -> Duration {
    DEFAULT_WINDOW
}

impl Definition {
    /// # Errors
    ///
    /// `Invalid` if something is out of range, or contradicts something else.
    pub(crate) fn check(&self) -> Result<()> {
        policy::check(self.missed, self.overlap)?;
        let spans = [
            ("grace", Some(self.grace)),
            ("window", Some(self.window)),
            ("jitter", self.jitter),
            ("expect_within", self.expect_within),
        ];
        for (what, span) in spans {
            check_span(what, span.unwrap_or_default())?;
        }
        if let (Some(jitter), Some(interval)) = (self.jitter, self.rule.interval())
            && jitter > interval
        {
            return Err(Error::invalid(format!(
                "a jitter of {jitter:?} is longer than the interval {interval:?}"
            )));
        }
        if self.expect_within.is_some_and(|span| span.is_zero()) {
            return Err(Error::invalid("expect_within is zero"));
        }
        if self.max_count == Some(0) {
            return Err(Error::invalid("a max_count of 0: it would make no task"));
        }
        if self.pause_after_failures == Some(0) {
            return Err(Error::invalid(
                "pause_after_failures 0: it would always be paused",
            ));
        }
        Ok(())
    }

    /// The definition in JSON.
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a checked definition can be encoded")
    }

    /// # Errors
    ///
    /// What is wrong, if the stored text is damaged.
    pub(crate) fn decode(stored: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(stored).map_err(|error| error.to_string())
    }

    /// Whether both mean the same slots. An interval that is counted from when it was first stored has no anchor of its own.
    pub(crate) fn has_rule_of(&self, other: &Self) -> bool {
        self.floats == other.floats
            && (self.rule == other.rule
                || self.floats
                    && self.rule.interval().is_some()
                    && self.rule.interval() == other.rule.interval())
    }

    /// Whether both are the same in every respect.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let anchored = Self {
            rule: if self.has_rule_of(other) {
                other.rule.clone()
            } else {
                self.rule.clone()
            },
            ..self.clone()
        };
        anchored.encode() == other.encode()
    }

    /// How long after its slot a task is due: a part of the jitter, drawn from the name and the slot, and less than the time
    /// to the next slot.
    pub(crate) fn delay(&self, draw: &Draw, slot: Timestamp, next: Option<Timestamp>) -> Duration {
        let Some(jitter) = self.jitter else {
            return Duration::ZERO;
        };
        let gap = next.map_or(Duration::MAX, |next| next.since(slot));
        let micros = u64::try_from(jitter.min(gap).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(draw.below(micros))
    }
}

/// What the tasks of a recurrence have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Template {
    pub(crate) kind: String,
    pub(crate) queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<String>,
    pub(crate) priority: u8,
    pub(crate) max_attempts: u32,
    pub(crate) delivery: Delivery,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) options: Options,
    /// How long after it is due a task may start at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_within: Option<Duration>,
}

impl Template {
    /// What a checked task has in common with those that follow it.
    pub(crate) fn of(task: Insert, start_within: Option<Duration>) -> (Self, Vec<u8>) {
        let template = Self {
            kind: task.kind.into_owned(),
            queue: task.queue.into_owned(),
            partition: task.partition,
            priority: task.priority,
            max_attempts: task.max_attempts,
            delivery: task.delivery,
            tags: task.tags,
            options: task
                .options
                .map_or_else(Options::default, |options| *options),
            start_within,
        };
        (template, task.payload)
    }

    /// The task of a slot.
    pub(crate) fn task(
        &self,
        id: TaskId,
        payload: Vec<u8>,
        slot: SlotOf,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Insert {
        let options = Options {
            slot: Some(slot),
            ..self.options.clone()
        };
        Insert {
            id,
            kind: Cow::Owned(self.kind.clone()),
            payload,
            queue: Cow::Owned(self.queue.clone()),
            partition: self.partition.clone(),
            priority: self.priority,
            created_at: now,
            scheduled_at: due_at,
            expires_at: self.start_within.map(|span| due_at.max(now) + span),
            max_attempts: self.max_attempts,
            delivery: self.delivery,
            tags: self.tags.clone(),
            options: Some(Box::new(options)),
        }
    }
}

/// What is drawn for a slot: the same in every process and after every crash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    hash: Uuid,
    place: u32,
}

/// The place of a recurrence among those with the same slot, drawn from its name: 26 bits. `file` is the random mark of the file.
pub(crate) fn place(file: Uuid, name: &str) -> u32 {
    Uuid::new_v5(&file, name.as_bytes()).as_fields().0 >> 6
}

impl Draw {
    /// The draw for a slot of the recurrence of this name and [`place`]; `file` is the random mark of the file.
    pub(crate) fn new(file: Uuid, place: u32, name: &str, slot: Timestamp) -> Self {
        let mut text = Vec::with_capacity(8 + name.len());
        text.extend(slot.micros().to_be_bytes());
        text.extend(name.as_bytes());
        let hash = Uuid::new_v5(&file, &text);
        Self { hash, place }
    }

    /// The id of the slot's task: a UUIDv7 with the time of the slot. Of its other bits the first 26 are the place of the
    /// recurrence. Those that are due at one instant fire in the order of their places, so their tasks are stored in the order of
    /// their ids: in random order each would touch another page of the index. The other 48 are drawn.
    pub(crate) fn id(self, slot: Timestamp) -> TaskId {
        let hash = self.hash.as_bytes();
        let byte = |shift: u32, mask: u32| u8::try_from(self.place >> shift & mask).unwrap_or(0);
        let (high, low) = (
            [byte(22, 0x0f), byte(14, 0xff)],
            [byte(8, 0x3f), byte(0, 0xff)],
        );
        let mut random = [0; 10];
        random[..2].copy_from_slice(&high);
        random[2..4].copy_from_slice(&low);
        random[4..].copy_from_slice(&hash[..6]);
        let millis = u64::try_from(slot.micros() / 1_000).unwrap_or(0);
        TaskId::from(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// A number below `end`, and 0 if that is 0. It does not depend on the bits that the id uses.
    fn below(self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.hash.as_bytes()[10..]);
        let draw = u128::from(u64::from_be_bytes(bytes));
        let below = (draw * u128::from(end)) >> 48;
        u64::try_from(below).unwrap_or(0)
    }
}

/// A checked recurrence on its way to the store.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) definition: Definition,
    pub(crate) payload: Vec<u8>,
    /// The slots from this instant on count, if the rule is new; `None`: those after the write.
    pub(crate) since: Option<Timestamp>,
}

/// Shows no payload.
impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({:?}, {})", self.name, self.definition.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::new_task::NewTask;
    use crate::model::recurrence::request::Recurrence;

    #[test]
    fn ids_are_drawn_from_the_file_the_recurrence_and_the_slot_in_order() {
        let slot = Timestamp::from_micros(1_767_225_600_000_000);
        let file = Uuid::from_u128(7);
        let id = |file, name: &str, slot| Draw::new(file, place(file, name), name, slot).id(slot);
        let first = id(file, "a", slot);
        assert_eq!(first, id(file, "a", slot), "the same in every process");
        assert_eq!(first.as_uuid().get_version_num(), 7);
        let others = [
            id(Uuid::from_u128(8), "a", slot),
            id(file, "b", slot),
            id(file, "a", slot + Duration::from_micros(1)),
        ];
        assert!(others.iter().all(|other| *other != first));
        let mut names: Vec<String> = (0..1_000).map(|name| name.to_string()).collect();
        names.sort_unstable_by_key(|name| place(file, name));
        let ids: Vec<_> = names.iter().map(|name| id(file, name, slot)).collect();
        assert!(ids.is_sorted(), "in the order of their places");
        let last = ids[999];
        assert!(last < id(file, &names[0], slot + Duration::from_millis(1)));
    }

    #[test]
    fn a_delay_is_less_than_the_jitter_and_the_time_to_the_next_slot() {
        let slot = Timestamp::from_micros(1_767_225_600_000_000);
        let hour = Duration::from_secs(3600);
        let jittered = Recurrence::new("a", NewTask::with_kind("kind", &()))
            .cron("0 * * * *")
            .unwrap()
            .jitter(hour);
        let definition = jittered.prepare(slot).unwrap().definition;
        let delays = |next: Option<Timestamp>| {
            let draws = (0..200).map(|key| Draw::new(Uuid::from_u128(key), 1, "a", slot));
            let delays: Vec<_> = draws
                .map(|draw| definition.delay(&draw, slot, next))
                .collect();
            (delays.iter().min().copied(), delays.iter().max().copied())
        };
        let (least, most) = delays(None);
        assert!(least < Some(hour / 10) && most > Some(hour / 10 * 9) && most < Some(hour));
        let minute = Duration::from_secs(60);
        let (_, most) = delays(Some(slot + minute));
        assert!(most < Some(minute), "{most:?}");
    }
}
