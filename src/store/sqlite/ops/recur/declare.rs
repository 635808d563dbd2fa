//! Bringing the stored recurrences of a set in line with what a program declares.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::recurrence::set::{Declaration, Declared, Declaring, Undeclared};
use crate::model::recurrence::view::{PausedBy, Recurred, RecurrenceAction};
use crate::store::sqlite::ops::recur::change::change;
use crate::store::sqlite::ops::recur::due::decide_due;
use crate::store::sqlite::ops::recur::register::{is_changed, register};
use crate::store::sqlite::ops::recur::row::Recurring;
use crate::store::sqlite::ops::row;
use crate::store::sqlite::ops::write_tx::WriteTx;
use crate::store::sqlite::sql::{columns, sql};

pub(crate) const REVISION: &str = "SELECT revision FROM punctual_recurrence_set WHERE name = :name";

pub(crate) const RAISE: &str = "
    INSERT INTO punctual_recurrence_set (name, revision) VALUES (:name, :revision)
    ON CONFLICT (name) DO UPDATE SET revision = excluded.revision";

pub(crate) const SET_OF: &str = "SELECT declared_in FROM punctual_recurrence WHERE name = :name";

pub(crate) const JOIN: &str =
    "UPDATE punctual_recurrence SET declared_in = :set WHERE name = :name";

pub(crate) const LEAVE: &str =
    "UPDATE punctual_recurrence SET declared_in = NULL WHERE name = :name";

pub(crate) const MEMBERS: &str = sql!(
    "SELECT {columns} FROM punctual_recurrence INDEXED BY punctual_recurrence_declared
    WHERE declared_in = :set",
    columns = Member::COLUMNS
);

columns! {
    /// A recurrence of a set.
    struct Member {
        name: String = "name" by row::get,
        paused_by: Option<i64> = "paused_by" by row::get,
    }
}

/// Whether the set was declared with a higher revision before.
fn is_outdated(conn: &Connection, declaration: &Declaration) -> rusqlite::Result<bool> {
    let revision: Option<i64> = conn
        .prepare_cached(REVISION)?
        .query_row([&declaration.set], |row| row.get(0))
        .optional()?;
    Ok(revision.is_some_and(|revision| revision > declaration.revision))
}

/// The recurrences that are stored as part of the set, and that it declares no more.
fn undeclared(conn: &Connection, declaration: &Declaration) -> rusqlite::Result<Vec<Member>> {
    let registrations = declaration.registrations.iter();
    let names: HashSet<&str> = registrations.map(|each| each.name.as_str()).collect();
    let mut statement = conn.prepare_cached(MEMBERS)?;
    let members = statement.query_map([&declaration.set], Member::read)?;
    members
        .filter(|member| {
            let is_declared = |member: &Member| names.contains(member.name.as_str());
            !member.as_ref().is_ok_and(is_declared)
        })
        .collect()
}

/// The stored recurrences that a declaration changes or pauses.
pub(super) fn changed(
    tx: &WriteTx<'_>,
    declaration: &Declaration,
) -> rusqlite::Result<Vec<String>> {
    let mut changed = Vec::new();
    if is_outdated(tx.conn, declaration)? {
        return Ok(changed);
    }
    for registration in &declaration.registrations {
        if is_changed(tx.conn, registration)? {
            changed.push(registration.name.clone());
        }
    }
    if declaration.undeclared == Undeclared::Pause {
        let undeclared = undeclared(tx.conn, declaration)?;
        changed.extend(undeclared.into_iter().map(|member| member.name));
    }
    Ok(changed)
}

pub(crate) fn declare(
    tx: &mut WriteTx<'_>,
    declaration: &Declaration,
) -> rusqlite::Result<Declaring> {
    let set = declaration.set.as_str();
    if is_outdated(tx.conn, declaration)? {
        return Ok(Declaring::Done(Declared {
            is_outdated: true,
            ..Declared::default()
        }));
    }
    // All of it, before anything is written.
    for registration in &declaration.registrations {
        let of: Option<Option<String>> = tx
            .conn
            .prepare_cached(SET_OF)?
            .query_row([&registration.name], |row| row.get(0))
            .optional()?;
        if let Some(other) = of.flatten().filter(|other| other != set) {
            return Ok(Declaring::Refused {
                recurrence: registration.name.clone(),
                set: other,
            });
        }
    }
    let mut declared = Declared::default();
    for registration in &declaration.registrations {
        let mut recurred = register(tx, registration)?;
        if resume_declared(tx, &registration.name)? && recurred == Recurred::Unchanged {
            recurred = Recurred::Changed;
        }
        tx.conn
            .prepare_cached(JOIN)?
            .execute([set, &registration.name])?;
        *match recurred {
            Recurred::Created => &mut declared.created,
            Recurred::Changed => &mut declared.changed,
            Recurred::Unchanged => &mut declared.unchanged,
        } += 1;
    }
    for member in undeclared(tx.conn, declaration)? {
        match declaration.undeclared {
            Undeclared::Remove => {
                change(tx, &member.name, &RecurrenceAction::Remove)?;
            }
            Undeclared::Pause if member.paused_by.is_some() => continue,
            Undeclared::Pause => {
                if let Some(mut recurring) = Recurring::by_name(tx.conn, &member.name)? {
                    decide_due(tx, &mut recurring)?;
                    recurring.pause(tx, PausedBy::Undeclared);
                    recurring.keep(tx)?;
                    // It is of no set: an operator may resume it, and another set may declare it.
                    tx.conn.prepare_cached(LEAVE)?.execute([&member.name])?;
                }
            }
        }
        declared.undeclared += 1;
    }
    tx.conn
        .prepare_cached(RAISE)?
        .execute(params![set, declaration.revision])?;
    Ok(Declaring::Done(declared))
}

/// Resumes a recurrence that was paused because it was not declared. Returns whether it was.
fn resume_declared(tx: &mut WriteTx<'_>, name: &str) -> rusqlite::Result<bool> {
    let recurring = Recurring::by_name(tx.conn, name)?;
    let paused_by = recurring.and_then(|recurring| recurring.paused_by);
    let is_undeclared = paused_by == Some(PausedBy::Undeclared.code());
    if is_undeclared {
        change(tx, name, &RecurrenceAction::Resume)?;
    }
    Ok(is_undeclared)
}
