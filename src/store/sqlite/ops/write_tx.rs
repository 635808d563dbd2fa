//! One transaction while it runs: what its operations share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use crate::id::TaskId;
use crate::model::event::{Event, EventKind};
use crate::model::lane::{Class, Lane, LaneId};
use crate::model::recurrence::event::{RecurrenceEvent, RecurrenceEventKind};
use crate::model::task::TaskState;
use crate::store::done::Done;
use crate::store::lanes::Lanes;
use crate::store::sqlite::ops::lanes::{lane_id, read_lane};
use crate::sync::lock;
use crate::time::Timestamp;

/// The transaction that an operation runs in.
pub(crate) struct WriteTx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) now: Timestamp,
    /// This instance; 0 for a client that runs nothing.
    pub(crate) instance: i64,
    pub(crate) lanes: &'a Mutex<Lanes>,
    /// Whether there are subscribers to events of tasks.
    pub(crate) wants_events: bool,
    /// Whether there are subscribers to events of recurrences.
    pub(crate) wants_recurrence_events: bool,
    /// The number of this instance's last claim.
    pub(crate) drawn: &'a mut i64,
    /// How many requests wait for this transaction to end.
    pub(crate) waiting: &'a AtomicUsize,
    /// The tasks of recurrences that were ended or revived by the operation that runs: their recurrences are told at its end.
    pub(crate) turned: Vec<Turned>,
    pub(crate) done: &'a mut Done,
}

/// A task of a recurrence that has ended, or is live again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turned {
    Ended { seq: i64, state: TaskState },
    Revived(i64),
}

const EXPIRES: &str =
    "INSERT OR IGNORE INTO punctual_expiry (expires_at, seq) VALUES (:expires_at, :seq)";

impl WriteTx<'_> {
    /// Whether a request waits for this transaction to end.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Draws the number of a claim of a row whose last claim was `last`: one that neither the task nor this instance has
    /// had. A row's number can come again once its task is deleted, and an old fence or ledger must not fit the new claim.
    pub(crate) fn draw(&mut self, last: i64) -> i64 {
        *self.drawn = last.min(1 << 62).max(*self.drawn) + 1;
        *self.drawn
    }

    pub(crate) fn lane_id(
        &mut self,
        queue: &str,
        kind: &str,
        class: Class,
    ) -> rusqlite::Result<LaneId> {
        let lanes = lock(self.lanes);
        lane_id(self.conn, &lanes, &mut self.done.learnt, queue, kind, class)
    }

    /// The version of the lanes as they will be if this transaction commits.
    pub(crate) fn lanes_version(&self) -> u64 {
        lock(self.lanes).version() + self.done.learnt.lane_changes()
    }

    /// The lanes of a queue.
    pub(crate) fn lanes_of(&self, queue: &str) -> Vec<LaneId> {
        let of = |lane: &&Lane| *lane.queue == *queue;
        let lanes = lock(self.lanes);
        let known = lanes.list().iter().filter(of);
        let all = known.chain(self.done.learnt.all_created().filter(of));
        all.map(|lane| lane.id).collect()
    }

    /// The lane of that number, if it is in use; `None` if it is retired, or the file does not have it.
    pub(crate) fn lane(&self, id: LaneId) -> Option<Lane> {
        if self.done.learnt.is_retired(id) {
            return None;
        }
        lock(self.lanes)
            .get(id)
            .or_else(|| self.done.learnt.created(id))
            .cloned()
    }

    /// The lane of that number, retired or not: that of an ended task. `None` if the file does not have it.
    pub(crate) fn any_lane(&self, id: LaneId) -> rusqlite::Result<Option<Lane>> {
        match self.lane(id) {
            Some(lane) => Ok(Some(lane)),
            None => read_lane(self.conn, id),
        }
    }

    /// Adds a start deadline: the task, which has not been started, may not be started after `at`.
    pub(crate) fn expires(&mut self, seq: i64, at: Timestamp) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached(EXPIRES)?
            .execute([at.micros(), seq])?;
        let expires = &mut self.done.expires;
        *expires = Some(expires.map_or(at, |known| known.min(at)));
        Ok(())
    }

    /// Makes an event of what happened to a task of `lane`, if there are subscribers.
    pub(crate) fn event(&mut self, lane: LaneId, task: TaskId, kind: EventKind) {
        self.event_at(lane, task, kind, self.now);
    }

    /// Makes an event of what happened to a recurrence, if there are subscribers.
    pub(crate) fn recurrence_event(&mut self, recurrence: &str, kind: RecurrenceEventKind) {
        if self.wants_recurrence_events {
            self.done.news.recurrence_events.push(RecurrenceEvent {
                recurrence: recurrence.into(),
                kind,
                at: self.now,
            });
        }
    }

    /// Makes an event of what happened to a task, with an instant that is not the transaction's.
    pub(crate) fn event_at(&mut self, lane: LaneId, task: TaskId, kind: EventKind, at: Timestamp) {
        // An event whose names cannot be read is left out: the change itself is in the file all the same.
        if self.wants_events
            && let Ok(Some(lane)) = self.any_lane(lane)
        {
            self.done.news.events.push(Event {
                task,
                task_kind: lane.kind,
                queue: lane.queue,
                kind,
                at,
            });
        }
    }
}

pub(crate) const FORGET_EXPIRY: &str =
    "DELETE FROM punctual_expiry WHERE seq = :seq AND expires_at = :expires_at";

/// Removes a task's start deadline.
pub(crate) fn forget_expiry(conn: &Connection, seq: i64, expires_at: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(FORGET_EXPIRY)?
        .execute([seq, expires_at])
        .map(|_| ())
}
