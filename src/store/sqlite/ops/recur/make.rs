//! Making the task of a slot, or letting the slot wait for the live task.

use rusqlite::{Connection, OptionalExtension, params};

use crate::id::TaskId;
use crate::model::op::Action;
use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::definition::{Definition, Draw};
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::kind::Found;
use crate::model::recurrence::policy::{Fate, Overlap, Place, SkipReason};
use crate::model::task::SlotOf;
use crate::store::sqlite::ops::change;
use crate::store::sqlite::ops::insert::insert_one;
use crate::store::sqlite::ops::recur::row::{Recurring, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

/// The live tasks of a recurrence. The state is that of the task itself: a row that was left behind does not count.
pub(crate) const LIVE: &str = sql!(
    "SELECT task.id FROM punctual_recurrence_live AS live
        INDEXED BY punctual_recurrence_live_recurrence
    JOIN punctual_task AS task ON task.seq = live.seq
    WHERE live.recurrence = :recurrence AND task.state IN ({pending}, {running})
        AND task.extras & {recurrence} <> 0"
);

pub(crate) const ADD_LIVE: &str =
    "INSERT OR REPLACE INTO punctual_recurrence_live (seq, recurrence) VALUES (:seq, :recurrence)";

pub(crate) const BUFFER: &str = "
    INSERT INTO punctual_recurrence_buffer (recurrence, number, id, slot, decided)
    VALUES (:recurrence, (SELECT coalesce(max(number), 0) + 1 FROM punctual_recurrence_buffer
        WHERE recurrence = :recurrence), :id, :slot, :decided)";

pub(crate) const FIRST_BUFFERED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence_buffer WHERE recurrence = :recurrence ORDER BY number LIMIT 1",
    columns = Buffered::COLUMNS
);

pub(crate) const UNBUFFER: &str =
    "DELETE FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND number = :number";

columns! {
    /// A slot, or a call without one, that waits for the end of the live task.
    #[derive(Debug, Clone, Copy)]
    struct Buffered {
        number: i64 = "number" by row::get,
        id: TaskId = "id" by row::id,
        slot: Option<Timestamp> = "slot" by row::time_or_none,
        decided: bool = "decided" by row::get,
    }
}

/// A recurrence with what its tasks are made of.
#[derive(Debug)]
pub(crate) struct Maker<'a> {
    pub(crate) recurring: &'a mut Recurring,
    pub(crate) definition: &'a Definition,
    pub(crate) payload: &'a [u8],
}

/// What became of a slot, or of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Made,
    Buffered,
    Skipped(SkipReason),
}

impl Maker<'_> {
    /// Gives a slot its place; `None`: a caller asked for a task now.
    pub(crate) fn place(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<Placed> {
        let overlap = self.definition.overlap;
        let is_live = overlap != Overlap::Allow && self.is_live(tx.conn)?;
        let placed = match overlap.place(is_live, self.recurring.buffered) {
            Place::Make => {
                self.make(tx, slot, id)?;
                Placed::Made
            }
            Place::Buffer => {
                self.buffer(tx, slot, id, true)?;
                Placed::Buffered
            }
            Place::Cancel => return self.cancel_and_place(tx, slot, id),
            Place::Skip(reason) => {
                self.decided(tx, slot, Fate::Skipped(reason))?;
                return Ok(Placed::Skipped(reason));
            }
        };
        self.decided(tx, slot, Fate::Made)?;
        Ok(placed)
    }

    /// Cancels the live tasks. The slot takes the place of what waits for their end; what becomes of it is decided when it
    /// leaves that place.
    fn cancel_and_place(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<Placed> {
        for live in self.live(tx.conn)? {
            change::change(tx, live, &Action::Cancel)?;
        }
        while let Some(buffered) = self.unbuffer(tx.conn)? {
            if !buffered.decided {
                let fate = Fate::Skipped(SkipReason::Superseded);
                self.decided(tx, buffered.slot, fate)?;
            }
        }
        if self.is_live(tx.conn)? {
            self.buffer(tx, slot, id, false)?;
            return Ok(Placed::Buffered);
        }
        self.make(tx, slot, id)?;
        self.decided(tx, slot, Fate::Made)?;
        Ok(Placed::Made)
    }

    /// Makes the tasks of what waits, as long as no task is live.
    pub(crate) fn release(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
        if self.recurring.buffered == 0
            || self.recurring.paused_at.is_some()
            || self.is_live(tx.conn)?
        {
            return Ok(());
        }
        if let Some(buffered) = self.unbuffer(tx.conn)? {
            self.make(tx, buffered.slot, buffered.id)?;
            if !buffered.decided {
                self.decided(tx, buffered.slot, Fate::Made)?;
            }
        }
        Ok(())
    }

    fn live(&self, conn: &Connection) -> rusqlite::Result<Vec<TaskId>> {
        conn.prepare_cached(LIVE)?
            .query_map([self.recurring.id], |row| row::id(row, 0))?
            .collect()
    }

    pub(crate) fn is_live(&self, conn: &Connection) -> rusqlite::Result<bool> {
        conn.prepare_cached(LIVE)?.exists([self.recurring.id])
    }

    /// Makes a task. A task with that id may be there already: a slot that is made up for has made it before.
    fn make(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<()> {
        let previous = self.recurring.previous_slot;
        if let Some(seq) = self.insert(tx, slot, previous, id)? {
            tx.conn
                .prepare_cached(ADD_LIVE)?
                .execute([seq, self.recurring.id])?;
        }
        self.recurring.previous_slot = previous.max(slot);
        Ok(())
    }

    /// Makes the task of a slot of long ago, beside those of the recurrence: it is not counted as a live one. Returns whether
    /// there was none.
    pub(crate) fn make_up(&self, tx: &mut WriteTx<'_>, slot: Timestamp) -> rusqlite::Result<bool> {
        let id = Draw::new(mark(tx.conn)?, &self.recurring.name, slot).id(slot);
        let previous = match self.definition.rule.previous_slot(slot) {
            Found::Slot(previous) => Some(previous),
            _ => None,
        };
        let seq = self.insert(tx, Some(slot), previous, id)?;
        Ok(seq.is_some())
    }

    fn insert(
        &self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        previous: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<Option<i64>> {
        let of = SlotOf {
            recurrence: self.recurring.name.clone(),
            at: slot,
            previous,
        };
        let due_at = match slot {
            Some(slot) => slot + self.delay(tx, slot)?,
            None => tx.now,
        };
        let payload = self.payload.to_vec();
        let task = self.definition.task.task(id, payload, of, due_at, tx.now);
        let made = RecurrenceEventKind::Made {
            slot: slot.map(Timestamp::to_utc),
            task: id,
        };
        tx.recurrence_event(&self.recurring.name, made);
        insert_one(tx, &task)
    }

    fn delay(&self, tx: &WriteTx<'_>, slot: Timestamp) -> rusqlite::Result<std::time::Duration> {
        if self.definition.jitter.is_none() {
            return Ok(std::time::Duration::ZERO);
        }
        let draw = Draw::new(mark(tx.conn)?, &self.recurring.name, slot);
        let next = match Upcoming::after(&self.definition.rule, slot) {
            Upcoming::Slot(next) => Some(next),
            Upcoming::Search(_) | Upcoming::Ended => None,
        };
        Ok(self.definition.delay(&draw, slot, next))
    }

    fn buffer(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
        decided: bool,
    ) -> rusqlite::Result<()> {
        tx.conn.prepare_cached(BUFFER)?.execute(params![
            self.recurring.id,
            id.as_bytes(),
            slot.map(Timestamp::micros),
            decided
        ])?;
        let waits = RecurrenceEventKind::Waiting {
            slot: slot.map(Timestamp::to_utc),
            task: id,
        };
        tx.recurrence_event(&self.recurring.name, waits);
        self.recurring.buffered += 1;
        Ok(())
    }

    /// Takes what has waited longest.
    fn unbuffer(&mut self, conn: &Connection) -> rusqlite::Result<Option<Buffered>> {
        if self.recurring.buffered == 0 {
            return Ok(None);
        }
        let first = conn
            .prepare_cached(FIRST_BUFFERED)?
            .query_row([self.recurring.id], Buffered::read)
            .optional()?;
        let Some(first) = first else {
            self.recurring.buffered = 0;
            return Ok(None);
        };
        conn.prepare_cached(UNBUFFER)?
            .execute([self.recurring.id, first.number])?;
        self.recurring.buffered -= 1;
        Ok(Some(first))
    }

    /// Records what became of a slot, if there is one.
    fn decided(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        fate: Fate,
    ) -> rusqlite::Result<()> {
        match slot {
            Some(slot) => runs::record_one(tx, self.recurring, self.definition, slot, fate),
            None => Ok(()),
        }
    }
}
