//! The audit: each ordered transfer was made exactly once, and no other transfer was made.

use std::path::Path;

use punctual::rusqlite::Connection;
use punctual::{Client, Filter, TaskId, TaskState};

use crate::Result;
use crate::bank::{ACCOUNTS, BALANCE};

pub(crate) struct Audited {
    pub(crate) transfers: i64,
    /// Attempts during which a process died.
    pub(crate) crashes: i64,
}

/// Audits the books. `acknowledged`: the transfers whose orders the processes reported as stored.
pub(crate) fn audit(file: &Path, acknowledged: &[String]) -> Result<Audited> {
    let client = Client::open(file)?;
    let conn = Connection::open(file)?;
    let number = |sql: &str| -> Result<i64> { Ok(conn.query_row(sql, [], |row| row.get(0))?) };
    let none = |what: &str, sql: &str| match number(sql)? {
        0 => Ok(()),
        count => Err::<(), Box<dyn std::error::Error>>(format!("{count} {what}").into()),
    };

    let mut ordered = conn.prepare("SELECT count(*) FROM orders WHERE transfer = ?1")?;
    let mut booked =
        conn.prepare("SELECT count(*), total(change) FROM ledger WHERE transfer = ?1")?;
    for id in acknowledged {
        let orders: i64 = ordered.query_row([id], |row| row.get(0))?;
        let (entries, sum): (i64, f64) =
            booked.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if (orders, entries) != (1, 2) || sum != 0.0 || !is_made(&client, id)? {
            return Err(format!(
                "{id} was acknowledged: {orders} orders, {entries} entries, {sum} over"
            )
            .into());
        }
    }
    none(
        "transfers were not made once: an entry for each of two accounts",
        "SELECT count(*) FROM (SELECT transfer FROM orders LEFT JOIN ledger USING (transfer)
            GROUP BY transfer HAVING count(ledger.transfer) <> 2)",
    )?;
    none(
        "orders are there twice",
        "SELECT count(*) - count(DISTINCT transfer) FROM orders",
    )?;
    none(
        "entries are of no order",
        "SELECT count(*) FROM ledger WHERE transfer NOT IN (SELECT transfer FROM orders)",
    )?;
    none(
        "accounts do not have what the ledger says",
        &format!(
            "SELECT count(*) FROM accounts AS a
            WHERE balance <> {BALANCE} + (SELECT ifnull(sum(change), 0) FROM ledger WHERE account = a.id)"
        ),
    )?;
    if number("SELECT sum(balance) FROM accounts")? != ACCOUNTS * BALANCE {
        return Err("money was made, or lost".into());
    }
    let transfers = number("SELECT count(*) FROM orders")?;
    for kind in ["transfer", "receipt"] {
        let tasks = client.count(&Filter::new().kind(kind))?;
        if tasks != u64::try_from(transfers)? {
            return Err(
                format!("{transfers} transfers, and {tasks} tasks of the kind {kind}").into(),
            );
        }
    }
    let crashes = number("SELECT ifnull(sum(crashes), 0) FROM punctual_trouble")?;
    Ok(Audited { transfers, crashes })
}

fn is_made(client: &Client, id: &str) -> Result<bool> {
    let id: TaskId = id.parse()?;
    let task = client.get(id)?;
    Ok(task.is_some_and(|task| task.state() == TaskState::Completed))
}
