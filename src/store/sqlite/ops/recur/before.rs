//! Deciding what is due before an operation changes recurrences, in transactions of their own.

use crate::model::op::{CHUNK, Op};
use crate::model::recurrence::view::RecurrenceAction;
use crate::store::sqlite::ops::recur::declare;
use crate::store::sqlite::ops::recur::due::decide_some;
use crate::store::sqlite::ops::recur::register;
use crate::store::sqlite::ops::recur::row::Recurring;
use crate::store::sqlite::ops::write_tx::WriteTx;

/// Decides a chunk of what is due of the recurrences that an operation is about to change. Returns whether there is more. The
/// operation would decide all of it itself, in one transaction.
pub(crate) fn decide_before(tx: &mut WriteTx<'_>, op: &Op) -> rusqlite::Result<bool> {
    let mut left = CHUNK;
    for name in changed_by(tx, op)? {
        if left == 0 {
            return Ok(true);
        }
        let Some(mut recurring) = Recurring::by_name(tx.conn, &name)? else {
            continue;
        };
        if op.is_reset() {
            recurring.take_over();
        }
        if recurring.due_slot(tx.now).is_some() || recurring.is_outdated() {
            left = left.saturating_sub(decide_some(tx, &mut recurring, left)?);
            recurring.keep(tx)?;
        }
    }
    Ok(left == 0)
}

/// The recurrences that an operation is about to change, and of which it decides what is due.
fn changed_by(tx: &WriteTx<'_>, op: &Op) -> rusqlite::Result<Vec<String>> {
    match op {
        Op::ChangeRecurrence { name, action } => Ok(match action {
            RecurrenceAction::Pause | RecurrenceAction::Edit(_) | RecurrenceAction::Reset(_) => {
                vec![name.clone()]
            }
            _ => Vec::new(),
        }),
        Op::Recur(registration) => {
            let is_changed = register::is_changed(tx.conn, registration)?;
            Ok(is_changed
                .then(|| registration.name.clone())
                .into_iter()
                .collect())
        }
        Op::Declare(declaration) => declare::changed(tx, declaration),
        _ => Ok(Vec::new()),
    }
}
