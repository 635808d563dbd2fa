//! The rows of a recurrence: the one that changes with each slot, and its definition.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::log::log;
use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::definition::Definition;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::policy::{Fate, Overlap};
use crate::model::recurrence::rule::Rule;
use crate::model::recurrence::undecided::Decided;
use crate::model::recurrence::view::Trouble;
use crate::model::recurrence::zone::TZDB;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};
use crate::sync::lock;
use crate::time::Timestamp;

columns! {
    /// What changes with each slot of a recurrence.
    #[derive(Debug, Clone)]
    struct Recurring {
        id: i64 = "id" by row::get,
        name: String = "name" by row::name,
        due_at: Option<Timestamp> = "due_at" by row::time_or_none,
        next_slot: Option<Timestamp> = "next_slot" by row::time_or_none,
        decided_until: Timestamp = "decided_until" by row::time,
        searched_until: Option<Timestamp> = "searched_until" by row::time_or_none,
        previous_slot: Option<Timestamp> = "previous_slot" by row::time_or_none,
        made: u64 = "made" by row::total,
        buffered: u64 = "buffered" by row::total,
        failures: u32 = "failures" by row::count,
        paused_at: Option<Timestamp> = "paused_at" by row::time_or_none,
        paused_by: Option<i64> = "paused_by" by row::get,
        expect_within: Option<Duration> = "expect_within" by row::span_or_none,
        expected_since: Option<Timestamp> = "expected_since" by row::time_or_none,
        expected_by: Option<Timestamp> = "expected_by" by row::time_or_none,
        overdue_since: Option<Timestamp> = "overdue_since" by row::time_or_none,
        completed_at: Option<Timestamp> = "completed_at" by row::time_or_none,
        run_first: Option<Timestamp> = "run_first" by row::time_or_none,
        run_last: Option<Timestamp> = "run_last" by row::time_or_none,
        run_fate: Option<i64> = "run_fate" by row::get,
        runs: u64 = "runs" by row::total,
        rule: i64 = "rule" by row::get,
        forgotten_until: Option<Timestamp> = "forgotten_until" by row::time_or_none,
        tzdb: Option<String> = "tzdb" by row::get,
        decided_civil: Option<String> = "decided_civil" by row::get,
    }
}

/// The last decisions that were alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) fate: Fate,
}

pub(crate) const BY_NAME: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence WHERE name = :name",
    columns = Recurring::COLUMNS
);

pub(crate) const BY_ID: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence WHERE id = :id",
    columns = Recurring::COLUMNS
);

pub(crate) const ADD: &str = "
    INSERT INTO punctual_recurrence (id, name, decided_until, made, buffered, failures, runs, rule)
    VALUES (:id, :name, :decided_until, 0, 0, 0, 0, 0)";

pub(crate) const KEEP: &str = "
    UPDATE punctual_recurrence
    SET due_at = ?2, next_slot = ?3, decided_until = ?4, previous_slot = ?5, made = ?6, buffered = ?7, failures = ?8,
        paused_at = ?9, paused_by = ?10, expected_by = ?11, overdue_since = ?12, completed_at = ?13, run_first = ?14,
        run_last = ?15, run_fate = ?16, runs = ?17, forgotten_until = ?18, tzdb = ?19, decided_civil = ?20,
        searched_until = ?21, rule = ?22, expect_within = ?23, expected_since = ?24
    WHERE id = ?1";

/// How long a search for the next slot rests that has found many excluded ones.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);
/// If all slots up to so long from now are excluded, there is none: a hundred years.
const MAX_SEARCHED: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Recurring {
    pub(crate) fn by_name(conn: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        conn.prepare_cached(BY_NAME)?
            .query_row([name], Self::read)
            .optional()
    }

    pub(crate) fn by_id(conn: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        conn.prepare_cached(BY_ID)?
            .query_row([id], Self::read)
            .optional()
    }

    /// Writes the row, and notes when the recurrence has to be looked at next.
    pub(crate) fn keep(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
        self.set_alarm();
        let micros = |at: Option<Timestamp>| at.map(Timestamp::micros);
        tx.conn.prepare_cached(KEEP)?.execute(params![
            self.id,
            micros(self.due_at),
            micros(self.next_slot),
            self.decided_until.micros(),
            micros(self.previous_slot),
            stored(self.made),
            stored(self.buffered),
            self.failures,
            micros(self.paused_at),
            self.paused_by,
            micros(self.expected_by),
            micros(self.overdue_since),
            micros(self.completed_at),
            micros(self.run_first),
            micros(self.run_last),
            self.run_fate,
            stored(self.runs),
            micros(self.forgotten_until),
            self.tzdb,
            self.decided_civil,
            micros(self.searched_until),
            self.rule,
            self.expect_within
                .map(|span| i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
            micros(self.expected_since),
        ])?;
        let trouble = self.trouble();
        if trouble != Trouble::default() || lock(tx.lanes).troubled().contains_key(&self.name) {
            tx.done.learnt.troubled(self.name.clone(), trouble);
        }
        for at in [self.due_at, self.expected_by].into_iter().flatten() {
            tx.done.learnt.recurs(at);
        }
        Ok(())
    }

    /// The number of a recurrence's row: in the order of the places, so what fires together lies together. `number` is one that no
    /// other has, also if one of them is removed.
    pub(crate) fn id_of(place: u32, number: i64) -> i64 {
        i64::from(place) << 32 | (number & 0xffff_ffff)
    }

    /// Its [place](crate::model::recurrence::definition::place) among those that are due at one instant.
    pub(crate) fn place(&self) -> u32 {
        u32::try_from(self.id >> 32).unwrap_or(0)
    }

    /// What an operator should know of it.
    fn trouble(&self) -> Trouble {
        Trouble {
            is_overdue: self.overdue_since.is_some(),
            is_stopped: self.is_stopped(),
        }
    }

    /// Up to where its slots are decided.
    pub(crate) fn decided(&self) -> Decided {
        Decided::new(self.decided_until, self.decided_civil.as_deref())
    }

    /// Notes that all slots up to `last` are decided which were still to be decided.
    pub(crate) fn advance(&mut self, rule: &Rule, last: Timestamp) {
        let mut decided = self.decided();
        decided.advance(rule, last);
        (self.decided_until, self.decided_civil) = (decided.until, decided.zones());
    }

    /// Notes that the slots of a rule begin after what is decided by instants.
    pub(crate) fn note_beginning(&mut self, rule: &Rule) {
        self.decided_civil = Decided::begin(rule, self.decided_until).zones();
    }

    /// The instant after which a slot counts, whatever is decided.
    pub(crate) fn bound(&self) -> Timestamp {
        self.decided_until
            .max(self.searched_until.unwrap_or(self.decided_until))
    }

    /// The first slot that is still to be decided.
    pub(crate) fn upcoming(&self, rule: &Rule) -> Upcoming {
        match self.decided().undecided(rule) {
            Some(undecided) => {
                let searched = self.searched_until.unwrap_or(Timestamp::MIN);
                Upcoming::after(&undecided, searched)
            }
            None => Upcoming::after(rule, self.bound()),
        }
    }

    /// Whether no slot is left, and none is searched.
    pub(crate) fn has_ended(&self) -> bool {
        self.next_slot.is_none() && self.searched_until.is_none()
    }

    /// The slot that is due and that this program may decide. While the recurrence is paused it makes no task.
    pub(crate) fn due_slot(&self, now: Timestamp) -> Option<Timestamp> {
        self.next_slot
            .filter(|slot| *slot <= now && !self.is_of_newer())
    }

    /// Whether a newer version of the time zone database has found its next slot.
    pub(crate) fn is_of_newer(&self) -> bool {
        self.tzdb.as_deref() > Some(TZDB)
    }

    /// Makes it this program's, which is about to give it other slots: what is due is decided as the newer version has found it.
    pub(crate) fn take_over(&mut self) {
        if self.is_of_newer() {
            self.tzdb = Some(TZDB.to_owned());
        }
    }

    /// Whether an older version of the time zone database has found its next slot.
    pub(crate) fn is_outdated(&self) -> bool {
        self.tzdb.as_deref().is_some_and(|tzdb| tzdb < TZDB)
    }

    /// Moves the recurrence on; it ends if it has made as many tasks as it may. While it is paused nothing is due.
    pub(crate) fn move_to(
        &mut self,
        tx: &mut WriteTx<'_>,
        next: Upcoming,
        definition: &Definition,
    ) {
        let had_ended = self.has_ended();
        let former = self.next_slot;
        let undecided = former.filter(|slot| *slot > self.decided_until);
        let is_complete = definition.max_count.is_some_and(|max| self.made >= max);
        let next = match next {
            _ if is_complete => Upcoming::Ended,
            Upcoming::Search(until) if until > tx.now + MAX_SEARCHED => Upcoming::Ended,
            next => next,
        };
        let is_paused = self.paused_at.is_some();
        self.due_at = match next {
            // A search goes on while its failures have paused it: the slot that it finds is expected.
            Upcoming::Search(_) if self.is_stopped() => Some(tx.now + SEARCH_AGAIN),
            _ if is_paused => None,
            // What waits need not wait any more.
            _ if self.buffered > 0 && definition.overlap == Overlap::Allow => Some(tx.now),
            Upcoming::Slot(slot) => Some(slot),
            Upcoming::Search(_) => Some(tx.now + SEARCH_AGAIN),
            Upcoming::Ended => None,
        };
        (self.next_slot, self.searched_until) = match next {
            Upcoming::Slot(slot) => {
                let decided = self.decided_until;
                (Some(slot), self.searched_until.filter(|at| *at > decided))
            }
            Upcoming::Search(until) => (None, Some(until)),
            Upcoming::Ended => (None, None),
        };
        if next == Upcoming::Ended && !had_ended {
            tx.recurrence_event(&self.name, RecurrenceEventKind::Ended);
        }
        // What a newer version of the time zone database has found stays as it is.
        if former.is_none() || former != self.next_slot || self.tzdb.as_deref() < Some(TZDB) {
            self.tzdb = definition.rule.has_zones().then(|| TZDB.to_owned());
        }
        if undecided.is_some() && self.next_slot != undecided && self.expected_since == undecided {
            // That slot does not come.
            (self.expected_since, self.overdue_since) = (None, None);
            if let Some(next) = self.next_slot {
                self.expect(next);
            }
        }
        self.expect_next(tx.now);
    }

    /// Goes on with the slots after now, though it had ended.
    pub(crate) fn revive(&mut self, tx: &mut WriteTx<'_>, definition: &Definition) {
        let from = self.bound().max(tx.now);
        let undecided = self.decided().undecided(&definition.rule);
        let next = Upcoming::after(undecided.as_ref().unwrap_or(&definition.rule), from);
        self.move_to(tx, next, definition);
        if self.next_slot.is_some() {
            self.searched_until = Some(from);
        }
    }

    /// Whether its failures have paused it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.paused_by.is_some_and(|by| by > 0)
    }

    /// Whether somebody has paused it. It was not its failures.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.paused_by.is_some_and(|by| by <= 0)
    }

    /// The last decisions that were alike, if there are any.
    pub(crate) fn run(&self) -> Option<Run> {
        Some(Run {
            first: self.run_first?,
            last: self.run_last?,
            fate: Fate::from_code(self.run_fate?),
        })
    }

    pub(crate) fn set_run(&mut self, run: Option<Run>) {
        self.run_first = run.map(|run| run.first);
        self.run_last = run.map(|run| run.last);
        self.run_fate = run.map(|run| run.fate.code());
    }
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) const DEFINITION: &str =
    "SELECT definition, payload FROM punctual_recurrence_definition WHERE id = :id";

/// The definition of a recurrence and the payload of its tasks; `None`: the rows are damaged.
pub(crate) fn definition(
    conn: &Connection,
    recurring: &Recurring,
) -> rusqlite::Result<Option<(Arc<Definition>, Vec<u8>)>> {
    let found: Option<(Vec<u8>, Vec<u8>)> = conn
        .prepare_cached(DEFINITION)?
        .query_row([recurring.id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((stored, payload)) = found else {
        return Ok(None);
    };
    match Definition::known(&stored) {
        Ok(definition) => Ok(Some((definition, payload))),
        Err(error) => {
            log!(error, recurrence = %recurring.name, %error, "the definition of a recurrence cannot be read");
            Ok(None)
        }
    }
}

const MARK: &str = "SELECT value FROM punctual_meta WHERE key = 'mark'";

/// The random mark of the file.
pub(crate) fn mark(conn: &Connection) -> rusqlite::Result<Uuid> {
    let mark: Vec<u8> = conn.prepare_cached(MARK)?.query_row([], |row| row.get(0))?;
    Ok(Uuid::from_slice(&mark).unwrap_or_default())
}
