//! Making the task of a slot, or letting the slot wait for the live task.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::id::TaskId;
use crate::model::op::Action;
use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::definition::{Definition, Draw};
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::policy::{Fate, Overlap, Place, SkipReason};
use crate::model::task::SlotOf;
use crate::store::sqlite::ops::change;
use crate::store::sqlite::ops::insert::insert_one;
use crate::store::sqlite::ops::recur::row::Recurring;
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

pub(crate) const TASK: &str = "SELECT 1 FROM punctual_task WHERE id = :id";

fn has_task(conn: &Connection, id: TaskId) -> rusqlite::Result<bool> {
    conn.prepare_cached(TASK)?.exists([id.as_bytes()])
}

/// Not OR REPLACE: SQLite would keep a journal of the statement.
pub(crate) const ADD_LIVE: &str = "
    INSERT OR IGNORE INTO punctual_recurrence_live (seq, recurrence, from_at, since)
    VALUES (:seq, :recurrence, :from_at, :since)";

pub(crate) const REPLACE_LIVE: &str =
    "UPDATE punctual_recurrence_live SET recurrence = ?2, from_at = ?3, since = ?4 WHERE seq = ?1";

/// Notes a task as a live one of a recurrence. `from`: the slot, or when it was made, if that is later; `None`: it is of a
/// call. `since`: from when on its completion is expected, if it is. A row of another task may have been left behind.
pub(crate) fn add_live(
    conn: &Connection,
    seq: i64,
    recurrence: i64,
    from: Option<Timestamp>,
    since: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let (from, since) = (from.map(Timestamp::micros), since.map(Timestamp::micros));
    for sql in [ADD_LIVE, REPLACE_LIVE] {
        let row = params![seq, recurrence, from, since];
        if conn.prepare_cached(sql)?.execute(row)? > 0 {
            break;
        }
    }
    Ok(())
}

pub(crate) const BUFFER: &str = "
    INSERT INTO punctual_recurrence_buffer (recurrence, number, id, slot)
    VALUES (:recurrence, (SELECT coalesce(max(number), 0) + 1 FROM punctual_recurrence_buffer
        WHERE recurrence = :recurrence), :id, :slot)";

pub(crate) const FIRST_BUFFERED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence_buffer WHERE recurrence = :recurrence ORDER BY number LIMIT 1",
    columns = Buffered::COLUMNS
);

pub(crate) const UNBUFFER: &str =
    "DELETE FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND number = :number";

pub(crate) const UNBUFFER_FROM: &str = "
    DELETE FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND slot >= :from";

pub(crate) const WAITING_FROM: &str = "
    SELECT count(*) FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND slot >= :from";

pub(crate) const WAITS: &str =
    "SELECT 1 FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND id = :id";

pub(crate) const WAITING_CALLS: &str =
    "SELECT id FROM punctual_recurrence_buffer WHERE recurrence = :recurrence AND slot IS NULL";

/// The tasks that calls would have made which wait.
pub(crate) fn waiting_calls(conn: &Connection, recurrence: i64) -> rusqlite::Result<Vec<TaskId>> {
    conn.prepare_cached(WAITING_CALLS)?
        .query_map([recurrence], |row| row::id(row, 0))?
        .collect()
}

columns! {
    /// A slot, or a call without one, that waits for the end of the live task.
    #[derive(Debug, Clone, Copy)]
    struct Buffered {
        number: i64 = "number" by row::get,
        id: TaskId = "id" by row::id,
        slot: Option<Timestamp> = "slot" by row::time_or_none,
    }
}

/// The most of what waits that one transaction makes. Other writers have their turn before the next.
pub(crate) const MAX_RELEASED: usize = 500;

/// A recurrence with what its tasks are made of.
#[derive(Debug)]
pub(crate) struct Maker<'a> {
    pub(crate) recurring: &'a mut Recurring,
    pub(crate) definition: &'a Definition,
    pub(crate) payload: &'a [u8],
    /// The random mark of the file.
    pub(crate) mark: Uuid,
}

/// What became of a slot, or of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Made,
    /// Its task was there already.
    Existing,
    Buffered,
    Skipped(SkipReason),
}

impl Recurring {
    /// What is drawn for a slot. `mark`: that of the file.
    fn draw(&self, mark: Uuid, slot: Timestamp) -> Draw {
        Draw::new(mark, self.place(), &self.name, slot)
    }
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
        if is_live && slot.is_some() {
            // A slot that is decided again does not meet its own task, or itself.
            let waits = self.waits(tx.conn, id)?;
            if waits || has_task(tx.conn, id)? {
                let previous = self.recurring.previous_slot;
                self.recurring.previous_slot = previous.max(slot.filter(|_| !waits));
                self.decided(tx, slot, Fate::Made)?;
                return Ok(Placed::Existing);
            }
        }
        // A caller who asks for a task while the recurrence is paused does not wait for what waits for its end.
        let is_aside = slot.is_none() && self.recurring.paused_at.is_some() && !is_live;
        let buffered = if is_aside { 0 } else { self.recurring.buffered };
        match overlap.place(is_live, buffered) {
            Place::Make => self.make_now(tx, slot, id),
            Place::Buffer => self.buffer(tx, slot, id),
            Place::Cancel => self.cancel_and_place(tx, slot, id),
            Place::Skip(reason) => {
                self.decided(tx, slot, Fate::Skipped(reason))?;
                Ok(Placed::Skipped(reason))
            }
        }
    }

    fn make_now(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<Placed> {
        let is_new = self.make(tx, slot, id)?;
        self.decided(tx, slot, Fate::Made)?;
        if !is_new {
            return Ok(Placed::Existing);
        }
        self.recurring.made += u64::from(slot.is_some());
        Ok(Placed::Made)
    }

    /// Cancels the live tasks. The slot takes the place of what waits for their end.
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
            match buffered.slot {
                Some(slot) => {
                    runs::supersede(tx, self.recurring, &self.definition.rule, slot)?;
                    self.uncount(tx)?;
                }
                None => {
                    let task = buffered.id;
                    tx.recurrence_event(
                        &self.recurring.name,
                        RecurrenceEventKind::Dropped { task },
                    );
                }
            }
        }
        if self.is_live(tx.conn)? {
            return self.buffer(tx, slot, id);
        }
        self.make_now(tx, slot, id)
    }

    /// Makes the tasks of what waits, as long as no task is live. Returns how many left their place: if it is
    /// [`MAX_RELEASED`], the recurrence is due, and goes on in the next transaction.
    pub(crate) fn release(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<usize> {
        for released in 0..MAX_RELEASED {
            let may_release = self.recurring.buffered > 0
                && self.recurring.paused_at.is_none()
                && (self.definition.overlap == Overlap::Allow || !self.is_live(tx.conn)?);
            if !may_release {
                return Ok(released);
            }
            let Some(buffered) = self.unbuffer(tx.conn)? else {
                return Ok(released);
            };
            if !self.make(tx, buffered.slot, buffered.id)? && buffered.slot.is_some() {
                self.uncount(tx)?;
            }
        }
        self.recurring.due_at = Some(tx.now);
        Ok(MAX_RELEASED)
    }

    /// A slot that waited makes no task: it does not count. If it was the last that may make one, another may.
    fn uncount(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
        let recurring = &mut *self.recurring;
        recurring.made = recurring.made.saturating_sub(1);
        if recurring.has_ended() {
            runs::close(tx.conn, recurring)?;
            recurring.revive(tx, self.definition);
        }
        Ok(())
    }

    fn live(&self, conn: &Connection) -> rusqlite::Result<Vec<TaskId>> {
        conn.prepare_cached(LIVE)?
            .query_map([self.recurring.id], |row| row::id(row, 0))?
            .collect()
    }

    fn is_live(&self, conn: &Connection) -> rusqlite::Result<bool> {
        conn.prepare_cached(LIVE)?.exists([self.recurring.id])
    }

    /// Whether a task waits for the end of the live one.
    fn waits(&self, conn: &Connection, id: TaskId) -> rusqlite::Result<bool> {
        let (recurrence, id) = (self.recurring.id, id.as_bytes());
        conn.prepare_cached(WAITS)?.exists(params![recurrence, id])
    }

    /// Makes a task. Returns whether it is new: a task with that id may be there already, if the slot is decided again.
    fn make(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<bool> {
        let previous = self.recurring.previous_slot;
        let before = match slot {
            // After a reset: it is made anew, and came before the last one.
            Some(slot) if previous >= Some(slot) => self.definition.rule.previous_slot(slot).slot(),
            _ => previous,
        };
        let seq = self.insert(tx, id, self.slot_of(slot, before))?;
        if let Some(seq) = seq {
            let since = slot.and_then(|slot| self.recurring.since(slot, tx.now));
            let from = slot.map(|slot| slot.max(tx.now));
            add_live(tx.conn, seq, self.recurring.id, from, since)?;
            since
                .into_iter()
                .for_each(|since| self.recurring.expect(since));
        }
        self.recurring.previous_slot = previous.max(slot);
        Ok(seq.is_some())
    }

    /// Makes the task of a slot of long ago, beside those of the recurrence: it is not counted as a live one. Returns whether
    /// there was none.
    pub(crate) fn make_up(&self, tx: &mut WriteTx<'_>, slot: Timestamp) -> rusqlite::Result<bool> {
        let previous = self.definition.rule.previous_slot(slot).slot();
        let of = SlotOf {
            is_beside: true,
            ..self.slot_of(Some(slot), previous)
        };
        let seq = self.insert(tx, self.draw(slot).id(slot), of)?;
        Ok(seq.is_some())
    }

    /// What is drawn for a slot.
    pub(crate) fn draw(&self, slot: Timestamp) -> Draw {
        self.recurring.draw(self.mark, slot)
    }

    fn slot_of(&self, at: Option<Timestamp>, previous: Option<Timestamp>) -> SlotOf {
        SlotOf {
            recurrence: self.recurring.name.clone(),
            key: self.recurring.id,
            at,
            previous,
            is_beside: false,
        }
    }

    /// Stores a task and returns its row; `None`: there is one of that id.
    fn insert(
        &self,
        tx: &mut WriteTx<'_>,
        id: TaskId,
        of: SlotOf,
    ) -> rusqlite::Result<Option<i64>> {
        let slot = of.at;
        let due_at = slot.map_or(tx.now, |slot| slot + self.delay(slot));
        let payload = self.payload.to_vec();
        let task = self.definition.task.task(id, payload, of, due_at, tx.now);
        let seq = insert_one(tx, &task)?;
        if seq.is_some() {
            let made = RecurrenceEventKind::Made {
                slot: slot.map(Timestamp::to_utc),
                task: id,
            };
            tx.recurrence_event(&self.recurring.name, made);
        }
        Ok(seq)
    }

    fn delay(&self, slot: Timestamp) -> Duration {
        if self.definition.jitter.is_none() {
            return Duration::ZERO;
        }
        let next = match Upcoming::after(&self.definition.rule, slot) {
            Upcoming::Slot(next) => Some(next),
            Upcoming::Search(_) | Upcoming::Ended => None,
        };
        self.definition.delay(&self.draw(slot), slot, next)
    }

    fn buffer(
        &mut self,
        tx: &mut WriteTx<'_>,
        slot: Option<Timestamp>,
        id: TaskId,
    ) -> rusqlite::Result<Placed> {
        tx.conn.prepare_cached(BUFFER)?.execute(params![
            self.recurring.id,
            id.as_bytes(),
            slot.map(Timestamp::micros),
        ])?;
        let waits = RecurrenceEventKind::Waiting {
            slot: slot.map(Timestamp::to_utc),
            task: id,
        };
        tx.recurrence_event(&self.recurring.name, waits);
        self.recurring.buffered += 1;
        self.recurring.made += u64::from(slot.is_some());
        self.decided(tx, slot, Fate::Made)?;
        Ok(Placed::Buffered)
    }

    /// How many slots from an instant on wait.
    pub(crate) fn waiting_from(&self, conn: &Connection, from: Timestamp) -> rusqlite::Result<u64> {
        conn.prepare_cached(WAITING_FROM)?
            .query_row([self.recurring.id, from.micros()], |row| row::total(row, 0))
    }

    /// Takes the slots from an instant on that wait.
    pub(crate) fn unbuffer_from(
        &mut self,
        conn: &Connection,
        from: Timestamp,
    ) -> rusqlite::Result<()> {
        let taken = conn
            .prepare_cached(UNBUFFER_FROM)?
            .execute([self.recurring.id, from.micros()])? as u64;
        self.recurring.buffered = self.recurring.buffered.saturating_sub(taken);
        self.recurring.made = self.recurring.made.saturating_sub(taken);
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
            Some(slot) => runs::record_one(tx, self.recurring, slot, fate),
            None => Ok(()),
        }
    }
}
