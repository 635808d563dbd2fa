//! What callers ask of stored recurrences: pause, resume, remove, trigger, edit, backfill, reset.

use rusqlite::params;

use crate::id::TaskId;
use crate::model::recurrence::backfill;
use crate::model::recurrence::decide::{Decision, Upcoming};
use crate::model::recurrence::edit::RecurrencePatch;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::policy::SkipReason;
use crate::model::recurrence::view::{
    PausedBy, RecurrenceAction, RecurrenceChanged, Triggered, Trouble,
};
use crate::store::sqlite::ops::recur::due::decide_due;
use crate::store::sqlite::ops::recur::fire::update_zone;
use crate::store::sqlite::ops::recur::make::{Maker, Placed, waiting_calls};
use crate::store::sqlite::ops::recur::record;
use crate::store::sqlite::ops::recur::register::{EDIT_DEFINITION, begin, redefine};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::time::Timestamp;

pub(crate) const REMOVE: [&str; 6] = [
    "DELETE FROM punctual_recurrence WHERE id = :id",
    "DELETE FROM punctual_recurrence_definition WHERE id = :id",
    "DELETE FROM punctual_recurrence_live WHERE recurrence = :id",
    "DELETE FROM punctual_recurrence_buffer WHERE recurrence = :id",
    "DELETE FROM punctual_recurrence_run WHERE recurrence = :id",
    "DELETE FROM punctual_recurrence_rule WHERE recurrence = :id",
];

impl Recurring {
    /// Nothing is due while it is paused, except a search, if its failures have paused it. Otherwise no completion is
    /// expected.
    pub(crate) fn pause(&mut self, tx: &mut WriteTx<'_>, by: PausedBy) {
        self.paused_by = Some(by.code());
        if self.is_at_rest() {
            self.tell_overdue(tx);
        }
        tx.recurrence_event(&self.name, RecurrenceEventKind::Paused(by));
        self.paused_at.get_or_insert(tx.now);
        let is_searched = self.next_slot.is_none() && self.searched_until.is_some();
        self.due_at = self.due_at.filter(|_| is_searched && self.is_stopped());
        if self.is_at_rest() {
            self.expected_since = None;
        }
    }
}

pub(crate) fn change(
    tx: &mut WriteTx<'_>,
    name: &str,
    action: &RecurrenceAction,
) -> rusqlite::Result<RecurrenceChanged> {
    let Some(mut recurring) = Recurring::by_name(tx.conn, name)? else {
        return Ok(RecurrenceChanged::NotFound);
    };
    let mut changed = RecurrenceChanged::Applied;
    match action {
        RecurrenceAction::Remove => {
            for task in waiting_calls(tx.conn, recurring.id)? {
                tx.recurrence_event(name, RecurrenceEventKind::Dropped { task });
            }
            for sql in REMOVE {
                tx.conn.prepare_cached(sql)?.execute([recurring.id])?;
            }
            tx.recurrence_event(name, RecurrenceEventKind::Removed);
            tx.done.learnt.troubled(recurring.name, Trouble::default());
            return Ok(changed);
        }
        RecurrenceAction::Pause if recurring.paused_by == Some(PausedBy::Caller.code()) => {
            return Ok(changed);
        }
        // Also if its failures have paused it, or a program that does not declare it any more: the caller's pause stays.
        RecurrenceAction::Pause => {
            decide_due(tx, &mut recurring)?;
            recurring.pause(tx, PausedBy::Caller);
        }
        RecurrenceAction::Resume if recurring.paused_at.is_none() => return Ok(changed),
        _ => {
            let Some((definition, payload)) = rows::definition(tx.conn, &recurring)? else {
                return Ok(RecurrenceChanged::Damaged);
            };
            match action {
                RecurrenceAction::Edit(_) => decide_due(tx, &mut recurring)?,
                RecurrenceAction::Reset(_) => {
                    recurring.take_over();
                    decide_due(tx, &mut recurring)?;
                }
                _ => update_zone(tx, &mut recurring)?,
            }
            let mut maker = Maker {
                recurring: &mut recurring,
                definition: &definition,
                payload: &payload,
                mark: mark(tx.conn)?,
            };
            changed = match action {
                RecurrenceAction::Trigger(id) => maker.trigger(tx, *id)?,
                RecurrenceAction::Reset(from) => maker.reset(tx, *from)?,
                RecurrenceAction::Edit(patch) => maker.edit(tx, patch)?,
                RecurrenceAction::Backfill { from, to } => maker.backfill(tx, *from, *to)?,
                _ => maker.resume(tx)?,
            };
        }
    }
    recurring.keep(tx)?;
    Ok(changed)
}

impl Maker<'_> {
    fn trigger(&mut self, tx: &mut WriteTx<'_>, id: TaskId) -> rusqlite::Result<RecurrenceChanged> {
        let placed = self.place(tx, None, id)?;
        Ok(RecurrenceChanged::Triggered(match placed {
            Placed::Made | Placed::Existing => Triggered::Made(id),
            Placed::Buffered => Triggered::Waiting(id),
            Placed::Skipped(reason) => Triggered::Skipped(reason),
        }))
    }

    fn edit(
        &mut self,
        tx: &mut WriteTx<'_>,
        patch: &RecurrencePatch,
    ) -> rusqlite::Result<RecurrenceChanged> {
        let (new, payload) = match patch.apply(self.definition) {
            Ok(patched) => patched,
            Err(error) => return Ok(RecurrenceChanged::Refused(error)),
        };
        let new = redefine(tx, self.recurring, Some(self.definition), &new, None)?;
        tx.conn.prepare_cached(EDIT_DEFINITION)?.execute(params![
            new.encode(),
            payload,
            self.recurring.id
        ])?;
        tx.recurrence_event(&self.recurring.name, RecurrenceEventKind::Changed);
        Ok(RecurrenceChanged::Applied)
    }

    /// Makes the tasks of a chunk of slots that made none.
    fn backfill(
        &mut self,
        tx: &mut WriteTx<'_>,
        from: Timestamp,
        to: Timestamp,
    ) -> rusqlite::Result<RecurrenceChanged> {
        runs::close(tx.conn, self.recurring)?;
        let record = record::read(tx.conn, self.recurring, self.definition, from, to, tx.now)?;
        let mut plan = backfill::plan(&record, from, to);
        for slot in plan.slots {
            let made = self.make_up(tx, slot)?;
            plan.counts.made -= u64::from(!made);
            plan.counts.existing += u64::from(!made);
        }
        runs::replace(tx.conn, self.recurring, &plan.gone, &plan.runs)?;
        Ok(RecurrenceChanged::Backfilled(plan.counts, plan.next))
    }

    /// Goes on with the slots from now on. Those that came during the pause are recorded as skipped.
    fn resume(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<RecurrenceChanged> {
        let (recurring, now) = (&mut *self.recurring, tx.now);
        (recurring.paused_at, recurring.paused_by, recurring.failures) = (None, None, 0);
        let next = match recurring.next_slot {
            Some(slot) => Upcoming::Slot(slot),
            None if recurring.has_ended() => Upcoming::Ended,
            None => recurring.upcoming(&self.definition.rule),
        };
        let decision = match next {
            Upcoming::Slot(first) if first <= now => self.undecided(|definition| {
                Decision::pass(&definition.rule, first, now, SkipReason::Paused)
            }),
            next => Decision::nothing(next),
        };
        self.take(tx, decision)?;
        tx.recurrence_event(&self.recurring.name, RecurrenceEventKind::Resumed);
        self.release(tx)?;
        self.recurring.expect_live(tx.conn)?;
        Ok(RecurrenceChanged::Applied)
    }

    /// Decides the slots from an instant on, also those that were decided while the clock was ahead, or that wait.
    fn reset(
        &mut self,
        tx: &mut WriteTx<'_>,
        from: Timestamp,
    ) -> rusqlite::Result<RecurrenceChanged> {
        let waiting = self.waiting_from(tx.conn, from)?;
        let made = self.recurring.made.saturating_sub(waiting);
        if (self.definition.max_count).is_some_and(|max| made >= max) {
            // It has made as many tasks as it may: nothing is decided anew.
            return Ok(RecurrenceChanged::Applied);
        }
        self.unbuffer_from(tx.conn, from)?;
        runs::cut(tx.conn, self.recurring, from)?;
        let recurring = &mut *self.recurring;
        recurring.expect_only_past(tx.conn, tx.now)?;
        let is_past = |slot: &Timestamp| *slot < from || *slot <= tx.now;
        recurring.previous_slot = recurring.previous_slot.filter(is_past);
        // Slots that are to come are passed over, but not decided.
        let before = Timestamp::from_micros(from.micros() - 1);
        recurring.forgotten_until = recurring.forgotten_until.map(|until| until.min(before));
        recurring.decided_until = before.min(tx.now);
        recurring.decided_civil = None;
        recurring.advance(&self.definition.rule, recurring.decided_until);
        begin(tx, recurring, self.definition, before);
        Ok(RecurrenceChanged::Applied)
    }
}
