//! Storing a recurrence, or what is new about it.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::recurrence::decide::Upcoming;
use crate::model::recurrence::definition::{Definition, Registration, place};
use crate::model::recurrence::event::RecurrenceEventKind;
use crate::model::recurrence::view::Recurred;
use crate::store::sqlite::file::counter::Counter;
use crate::store::sqlite::ops::recur::due::decide_due;
use crate::store::sqlite::ops::recur::row::{ADD, Recurring, mark};
use crate::store::sqlite::ops::recur::runs;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};
use crate::time::Timestamp;

pub(crate) const ADD_DEFINITION: &str = "
    INSERT INTO punctual_recurrence_definition (id, definition, payload) VALUES (:id, :definition, :payload)";

columns! {
    /// What the program gave last, and what holds now.
    struct Stored {
        registered: Vec<u8> = "ifnull(registered, definition)" by row::get,
        registered_payload: Vec<u8> = "ifnull(registered_payload, payload)" by row::get,
        definition: Vec<u8> = "definition" by row::get,
    }
}

pub(crate) const STORED: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence_definition WHERE id = :id",
    columns = Stored::COLUMNS
);

pub(crate) const REPLACE_DEFINITION: &str = "
    UPDATE punctual_recurrence_definition
    SET definition = :definition, payload = :payload, registered = NULL, registered_payload = NULL
    WHERE id = :id";

/// Keeps what the program gave last.
pub(crate) const EDIT_DEFINITION: &str = "
    UPDATE punctual_recurrence_definition
    SET registered = ifnull(registered, definition), registered_payload = ifnull(registered_payload, payload),
        definition = :definition, payload = ifnull(:payload, payload)
    WHERE id = :id";

impl Stored {
    fn of(conn: &Connection, recurrence: i64) -> rusqlite::Result<Option<Self>> {
        conn.prepare_cached(STORED)?
            .query_row([recurrence], Self::read)
            .optional()
    }

    /// Whether the program gave the same last.
    fn is_of(&self, registration: &Registration) -> bool {
        let registered = Definition::decode(&self.registered).ok();
        registered.is_some_and(|registered| registration.definition.is_same(&registered))
            && self.registered_payload == registration.payload
    }
}

/// Whether a recurrence of that name is stored, and is another.
pub(super) fn is_changed(conn: &Connection, registration: &Registration) -> rusqlite::Result<bool> {
    let Some(recurring) = Recurring::by_name(conn, &registration.name)? else {
        return Ok(false);
    };
    let stored = Stored::of(conn, recurring.id)?;
    Ok(stored.is_none_or(|stored| !stored.is_of(registration)))
}

pub(crate) fn register(
    tx: &mut WriteTx<'_>,
    registration: &Registration,
) -> rusqlite::Result<Recurred> {
    match Recurring::by_name(tx.conn, &registration.name)? {
        None => add(tx, registration),
        Some(recurring) => update(tx, registration, recurring),
    }
}

fn add(tx: &mut WriteTx<'_>, registration: &Registration) -> rusqlite::Result<Recurred> {
    let place = place(mark(tx.conn)?, &registration.name);
    let id = Recurring::id_of(place, Counter::Recurrences.draw(tx.conn)?);
    let anchor = registration.since.unwrap_or(tx.now);
    let definition = anchored(&registration.definition, anchor);
    tx.conn
        .prepare_cached(ADD)?
        .execute(params![id, registration.name, tx.now.micros()])?;
    tx.conn.prepare_cached(ADD_DEFINITION)?.execute(params![
        id,
        definition.encode(),
        registration.payload
    ])?;
    if let Some(mut recurring) = Recurring::by_id(tx.conn, id)? {
        let from = before(since_or_now(tx, registration.since));
        recurring.decided_until = from.min(tx.now);
        recurring.expect_within = definition.expect_within;
        tx.recurrence_event(&registration.name, RecurrenceEventKind::Created);
        recurring.note_beginning(&definition.rule);
        begin(tx, &mut recurring, &definition, from);
        if recurring.has_ended() {
            tx.recurrence_event(&registration.name, RecurrenceEventKind::Ended);
        }
        recurring.keep(tx)?;
    }
    Ok(Recurred::Created)
}

fn update(
    tx: &mut WriteTx<'_>,
    registration: &Registration,
    mut recurring: Recurring,
) -> rusqlite::Result<Recurred> {
    let new = &registration.definition;
    let mut current = None;
    if let Some(stored) = Stored::of(tx.conn, recurring.id)? {
        if stored.is_of(registration) {
            return Ok(Recurred::Unchanged);
        }
        current = Definition::decode(&stored.definition).ok();
    }
    tx.done.learnt.readable(recurring.id);
    if current.is_some() {
        decide_due(tx, &mut recurring)?;
    }
    let changed = redefine(
        tx,
        &mut recurring,
        current.as_ref(),
        new,
        registration.since,
    )?;
    tx.conn
        .prepare_cached(REPLACE_DEFINITION)?
        .execute(params![
            changed.encode(),
            registration.payload,
            recurring.id
        ])?;
    recurring.keep(tx)?;
    tx.recurrence_event(&registration.name, RecurrenceEventKind::Changed);
    Ok(Recurred::Changed)
}

/// Gives a recurrence another definition, which is returned as it is to be stored. If the rule is another, the slots begin anew,
/// at `since` or after the write.
pub(super) fn redefine(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    current: Option<&Definition>,
    new: &Definition,
    since: Option<Timestamp>,
) -> rusqlite::Result<Definition> {
    let mut changed = new.clone();
    recurring.tell_overdue(tx);
    recurring.expect_anew(tx.conn, new.expect_within, tx.now)?;
    match current {
        Some(current) if new.has_rule_of(current) => {
            changed.rule = current.rule.clone();
            match recurring.next_slot {
                Some(slot) => recurring.move_to(tx, Upcoming::Slot(slot), &changed),
                // It had made as many tasks as it might, and may go on now. What came between is in no run.
                None if recurring.has_ended() => {
                    runs::close(tx.conn, recurring)?;
                    recurring.revive(tx, &changed);
                }
                None => recurring.move_to(tx, recurring.upcoming(&changed.rule), &changed),
            }
        }
        current => {
            if recurring.is_of_newer() {
                recurring.take_over();
                decide_due(tx, recurring)?;
            }
            let rule = current.map(|current| &current.rule);
            runs::change_rule(tx.conn, recurring, rule)?;
            recurring.expect_only_past(tx.conn, tx.now)?;
            changed = anchored(new, since.unwrap_or(tx.now));
            // What is decided stays decided.
            let from = before(since_or_now(tx, since)).max(recurring.decided_until);
            recurring.decided_until = from.min(tx.now).max(recurring.decided_until);
            recurring.note_beginning(&changed.rule);
            begin(tx, recurring, &changed, from);
        }
    }
    Ok(changed)
}

/// The first instant of which a slot counts.
fn since_or_now(tx: &WriteTx<'_>, since: Option<Timestamp>) -> Timestamp {
    since.unwrap_or_else(|| Timestamp::from_micros(tx.now.micros() + 1))
}

fn before(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.micros() - 1)
}

/// Begins with the first slot after an instant, which may be long after now. Up to where slots are decided must be noted.
pub(super) fn begin(
    tx: &mut WriteTx<'_>,
    recurring: &mut Recurring,
    definition: &Definition,
    from: Timestamp,
) {
    recurring.searched_until = (from > recurring.decided_until).then_some(from);
    recurring.tzdb = None;
    let next = Upcoming::after(&definition.rule, from);
    recurring.move_to(tx, next, definition);
}

/// The definition, with its interval counted from `since` if it has no instant of its own.
fn anchored(definition: &Definition, since: Timestamp) -> Definition {
    let mut definition = definition.clone();
    if definition.floats {
        definition.rule = definition.rule.anchored_at(since);
    }
    definition
}
