//! The dead-man's switch: from when on a completion is expected, and which completion meets what.
//!
//! `expected_since` of a recurrence is the least instant from which the span to a completion counts: of the slots that have
//! come and that no completion has met, or else the next slot. The task of a slot that is made late has its span from then
//! on. Each live task of a slot has its own instant in `punctual_recurrence_live`, until a completion has met it: one of a
//! task that was made before it does not. A pause by something else than failures forgets `expected_since`, and its end
//! finds it again by the live tasks.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::log::log;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::store::sqlite::ops::recur::row::Recurring;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::sql;
use crate::time::Timestamp;

/// A completion meets the slots that have come and whose tasks were made before its own.
pub(crate) const MEET: &str = "
    UPDATE punctual_recurrence_live INDEXED BY punctual_recurrence_live_expected SET since = NULL
    WHERE recurrence = :recurrence AND since IS NOT NULL AND seq < :seq AND since <= :now";

/// The state is that of the task itself: a row that was left behind does not count.
pub(crate) const UNMET: &str = sql!(
    "SELECT live.since FROM punctual_recurrence_live AS live INDEXED BY punctual_recurrence_live_since
    JOIN punctual_task AS task ON task.seq = live.seq
    WHERE live.recurrence = :recurrence AND live.since IS NOT NULL AND task.state IN ({pending}, {running})
        AND task.extras & {recurrence} <> 0
    ORDER BY live.since LIMIT 1"
);

/// The live tasks of slots that were made since the last completion have a span from now on, or from their slot, if that is
/// to come.
pub(crate) const EXPECT_LIVE: &str = "
    UPDATE punctual_recurrence_live INDEXED BY punctual_recurrence_live_recurrence SET since = max(:now, from_at)
    WHERE recurrence = :recurrence AND from_at >= :completed_at";

pub(crate) const EXPECT_NOTHING: &str = "
    UPDATE punctual_recurrence_live INDEXED BY punctual_recurrence_live_expected SET since = NULL
    WHERE recurrence = :recurrence AND since IS NOT NULL";

impl Recurring {
    /// Expects a completion within the span after an instant. Nothing is expected while somebody has paused it.
    pub(super) fn expect(&mut self, since: Timestamp) {
        if self.expect_within.is_some() && !self.is_at_rest() {
            let sooner = self.expected_since.filter(|sooner| *sooner < since);
            self.expected_since = Some(sooner.unwrap_or(since));
        }
    }

    /// Expects a completion after the next slot. One that has come already is expected once it makes its task.
    pub(super) fn expect_next(&mut self, now: Timestamp) {
        if let Some(next) = self.next_slot.filter(|slot| *slot > now) {
            self.expect(next);
        }
    }

    /// Expects the completions that the live tasks still owe.
    pub(super) fn expect_live(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.expect_within.is_some() {
            let unmet = conn
                .prepare_cached(UNMET)?
                .query_row([self.id], |row| row::time(row, 0))
                .optional()?;
            unmet.into_iter().for_each(|since| self.expect(since));
        }
        Ok(())
    }

    /// Whether no completion has met a slot that has come, or one before it.
    pub(super) fn is_unmet(&self, slot: Timestamp) -> bool {
        self.expected_since.is_some_and(|since| since <= slot)
    }

    /// Whether a task that is tried again, of a slot that was met when it was made at `from`, has its span from then on, as it
    /// had: nothing has completed since, and something is expected from before. In a pause that is forgotten, but not for
    /// what is live at its end.
    pub(super) fn expects_again(&self, from: Timestamp) -> bool {
        let is_expected = self.is_unmet(from) || self.is_at_rest() && self.expect_within.is_some();
        is_expected && self.completed_at.is_none_or(|at| at <= from)
    }

    /// From when on a task that is made now for a slot has its span: from now on, if the slots up to this one are met.
    pub(super) fn since(&self, slot: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let since = match self.is_unmet(slot) {
            true => slot,
            false => slot.max(now),
        };
        self.expect_within.map(|_| since)
    }

    /// The task of row `seq` has completed: it meets all slots that have come, except those of live tasks that were made
    /// after it. Returns whether nothing is overdue any more.
    pub(super) fn meet(
        &mut self,
        conn: &Connection,
        seq: i64,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        self.completed_at = Some(now);
        if self.expect_within.is_none() {
            return Ok(false);
        }
        conn.prepare_cached(MEET)?
            .execute([self.id, seq, now.micros()])?;
        self.expected_since = None;
        self.expect_live(conn)?;
        self.expect_next(now);
        Ok(self.end_alarm(now))
    }

    /// What is expected of slots that have come, and of live tasks, stays so, whatever else is changed.
    pub(super) fn expect_only_past(
        &mut self,
        conn: &Connection,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        if self.expected_since.is_some_and(|since| since > now) {
            (self.expected_since, self.overdue_since) = (None, None);
            self.expect_live(conn)?;
        }
        Ok(())
    }

    /// Tells that a completion is overdue, if that is so and was not told: also right before it comes.
    pub(super) fn tell_overdue(&mut self, tx: &mut WriteTx<'_>) {
        let overdue = self.deadline().filter(|by| *by <= tx.now);
        if overdue.is_some() && self.overdue_since.is_none() {
            log!(warn, recurrence = %self.name, "a recurrence has not completed in time");
            self.overdue_since = overdue;
            tx.recurrence_event(&self.name, RecurrenceEventKind::Overdue);
        }
    }

    /// Another span is allowed until a completion. If one is overdue by both, it stays so, and is not told again.
    pub(super) fn expect_anew(
        &mut self,
        conn: &Connection,
        within: Option<Duration>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let former = std::mem::replace(&mut self.expect_within, within);
        match (former, within) {
            (None, Some(_)) => {
                // A time of completion that is to come is one of a clock that was ahead.
                let completed_at = self.completed_at.filter(|at| *at <= now);
                let completed_at = completed_at.unwrap_or(Timestamp::MIN).micros();
                conn.prepare_cached(EXPECT_LIVE)?.execute(params![
                    now.micros(),
                    self.id,
                    completed_at
                ])?;
                self.expect_live(conn)?;
            }
            (Some(_), None) => {
                conn.prepare_cached(EXPECT_NOTHING)?.execute([self.id])?;
                self.expected_since = None;
            }
            _ => {}
        }
        self.end_alarm(now);
        Ok(())
    }

    /// By when a completion is expected, or since when it is overdue.
    fn deadline(&self) -> Option<Timestamp> {
        Some(self.expected_since? + self.expect_within?)
    }

    /// Ends the alarm if nothing is overdue any more. Returns whether it has.
    fn end_alarm(&mut self, now: Timestamp) -> bool {
        let is_overdue = self.deadline().is_some_and(|by| by <= now);
        !is_overdue && self.overdue_since.take().is_some()
    }

    /// Sets by when a completion is expected next, or since when one is overdue: that is told once.
    pub(super) fn set_alarm(&mut self) {
        let by = self.deadline();
        self.overdue_since = self.overdue_since.and(by);
        self.expected_by = by.filter(|_| self.overdue_since.is_none());
    }
}
