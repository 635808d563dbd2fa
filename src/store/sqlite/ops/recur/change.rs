//! What callers ask of stored recurrences: pause, resume, remove, trigger, reset.

use std::time::Duration;

use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::kind::Found;
use crate::model::recurrence::policy::{Fate, SkipReason};
use crate::model::recurrence::view::{
    PausedBy, RecurrenceAction, RecurrenceChanged, Triggered, Trouble,
};
use crate::store::sqlite::ops::recur::make::{Maker, Placed};
use crate::store::sqlite::ops::recur::row::{self as rows, Recurring, Run};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::time::Timestamp;

pub(crate) const REMOVE: [&str; 5] = [
    "DELETE FROM punctual_recurrence WHERE id = :id",
    "DELETE FROM punctual_recurrence_definition WHERE id = :id",
    "DELETE FROM punctual_recurrence_live WHERE recurrence = :id",
    "DELETE FROM punctual_recurrence_buffer WHERE recurrence = :id",
    "DELETE FROM punctual_recurrence_run WHERE recurrence = :id",
];

impl Recurring {
    /// Nothing is due while it is paused, and no completion is expected.
    pub(crate) fn pause(&mut self, tx: &mut WriteTx<'_>, by: PausedBy) {
        tx.recurrence_event(&self.name, RecurrenceEventKind::Paused(by));
        self.paused_at = Some(tx.now);
        self.paused_by = Some(by.code());
        self.due_at = None;
        self.expected_by = None;
        self.overdue_since = None;
    }
}

pub(crate) fn change(
    tx: &mut WriteTx<'_>,
    name: &str,
    action: RecurrenceAction,
) -> rusqlite::Result<RecurrenceChanged> {
    let Some(mut recurring) = Recurring::by_name(tx.conn, name)? else {
        return Ok(RecurrenceChanged::NotFound);
    };
    let mut changed = RecurrenceChanged::Applied;
    match action {
        RecurrenceAction::Remove => {
            for sql in REMOVE {
                tx.conn.prepare_cached(sql)?.execute([recurring.id])?;
            }
            tx.recurrence_event(name, RecurrenceEventKind::Removed);
            tx.done.learnt.troubled(recurring.name, Trouble::default());
            return Ok(changed);
        }
        RecurrenceAction::Pause if recurring.paused_at.is_some() => return Ok(changed),
        RecurrenceAction::Pause => recurring.pause(tx, PausedBy::Caller),
        RecurrenceAction::Resume if recurring.paused_at.is_none() => return Ok(changed),
        RecurrenceAction::Resume | RecurrenceAction::Trigger(_) | RecurrenceAction::Reset(_) => {
            let Some((definition, payload)) = rows::definition(tx.conn, &recurring)? else {
                return Ok(RecurrenceChanged::Damaged);
            };
            let mut maker = Maker {
                recurring: &mut recurring,
                definition: &definition,
                payload: &payload,
            };
            match action {
                RecurrenceAction::Trigger(id) => {
                    let placed = maker.place(tx, None, id)?;
                    changed = RecurrenceChanged::Triggered(match placed {
                        Placed::Made => Triggered::Made(id),
                        Placed::Buffered => Triggered::Waiting(id),
                        Placed::Skipped(reason) => Triggered::Skipped(reason),
                    });
                }
                RecurrenceAction::Reset(from) => maker.reset(tx, from)?,
                _ => maker.resume(tx)?,
            }
        }
    }
    recurring.keep(tx)?;
    Ok(changed)
}

impl Maker<'_> {
    /// Goes on with the slots from now on. Those that came during the pause are recorded as skipped.
    fn resume(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
        let (recurring, rule) = (&mut *self.recurring, &self.definition.rule);
        (recurring.paused_at, recurring.paused_by, recurring.failures) = (None, None, 0);
        let mut next = match recurring.next_slot {
            Some(slot) => Upcoming::Slot(slot),
            None => Upcoming::after(rule, recurring.decided_until),
        };
        if let Upcoming::Slot(first) = next
            && first <= tx.now
        {
            let last = match rule.previous_slot(tx.now + Duration::from_micros(1)) {
                Found::Slot(last) if last > first => last,
                _ => first,
            };
            let fate = Fate::Skipped(SkipReason::Paused);
            runs::record(tx, recurring, self.definition, Run { first, last, fate })?;
            recurring.decided_until = tx.now;
            next = Upcoming::after(rule, tx.now);
        }
        let max = self.definition.max_count;
        if max.is_some_and(|max| recurring.made >= max) {
            next = Upcoming::Ended;
        }
        tx.recurrence_event(&recurring.name, RecurrenceEventKind::Resumed);
        recurring.move_to(tx, next, self.definition);
        self.release(tx)
    }

    /// Decides the slots from an instant on, also those before it that were decided while the clock was ahead.
    fn reset(&mut self, tx: &mut WriteTx<'_>, from: Timestamp) -> rusqlite::Result<()> {
        runs::close(tx.conn, self.recurring, self.definition)?;
        let recurring = &mut *self.recurring;
        recurring.decided_until = Timestamp::from_micros(from.micros() - 1);
        recurring.expected_by = None;
        let next = Upcoming::after(&self.definition.rule, recurring.decided_until);
        recurring.move_to(tx, next, self.definition);
        Ok(())
    }
}
