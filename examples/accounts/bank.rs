//! The work of every process: ordering transfers, and making them.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use punctual::{
    Client, Failure, Filter, NewTask, Outcome, Payload, RetryPolicy, Scheduler, TaskContext,
    TaskId, TaskResult, Tx,
};
use serde::{Deserialize, Serialize};

use crate::Result;

pub(crate) const ACCOUNTS: i64 = 20;
pub(crate) const BALANCE: i64 = 1_000;

#[derive(Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) amount: i64,
}

impl Payload for Transfer {
    const KIND: &'static str = "transfer";
}

/// The follow-up of a transfer: a task of its own.
#[derive(Serialize, Deserialize)]
pub(crate) struct Receipt {
    transfer: String,
}

impl Payload for Receipt {
    const KIND: &'static str = "receipt";
}

/// Creates the tables of the bank in the scheduler's file. They do not forbid making a transfer twice.
pub(crate) fn found(file: &Path) -> Result<()> {
    let client = Client::open(file)?;
    client.transaction(|tx| {
        tx.sqlite()?.execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL) STRICT;
            CREATE TABLE orders (transfer TEXT NOT NULL) STRICT;
            CREATE TABLE ledger (transfer TEXT NOT NULL, account INTEGER NOT NULL, change INTEGER NOT NULL) STRICT;",
        )?;
        for id in 1..=ACCOUNTS {
            tx.sqlite()?.execute("INSERT INTO accounts VALUES (?1, ?2)", [id, BALANCE])?;
        }
        Ok::<_, punctual::Error>(())
    })?;
    Ok(())
}

/// Runs until the process is killed; without taking orders, until all transfers are made.
pub(crate) fn serve(file: &Path, takes_orders: bool) -> Result<()> {
    let scheduler = Scheduler::builder(file)
        .workers(3)
        .retry_policy("transfer", RetryPolicy::fixed(Duration::from_millis(1)))
        .handler_fn(transfer)
        .handler_fn(|_: Receipt, _: &TaskContext| Ok(Outcome::done()))
        .start()?;
    if takes_orders {
        loop {
            let id = order(&scheduler)?;
            say(&format!("ordered {id}"))?;
        }
    }
    let open = Filter::new().unfinished();
    while scheduler.count(&open)? > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    scheduler.shutdown(Duration::from_secs(30))?;
    Ok(())
}

/// Orders a transfer: the order and its task are one commit.
fn order(client: &Client) -> Result<String> {
    let transfer = Transfer {
        from: fastrand::i64(1..=ACCOUNTS),
        to: fastrand::i64(1..=ACCOUNTS),
        amount: fastrand::i64(1..100),
    };
    // So that the kills do not fail the task.
    let id = TaskId::new();
    let task = NewTask::new(transfer).id(id).max_crashes(1_000);
    let id = id.to_string();
    client.transaction(|tx| {
        tx.sqlite()?
            .execute("INSERT INTO orders VALUES (?1)", [&id])?;
        tx.schedule(task)?;
        Ok::<_, punctual::Error>(())
    })?;
    Ok(id)
}

/// The handler: the balances, the ledger, the receipt and the completion are one commit.
fn transfer(transfer: Transfer, cx: &TaskContext) -> TaskResult {
    let id = cx.id().to_string();
    say(&format!("begun {id}"))?;
    // Simulated work before the transaction, during which the process may be killed.
    std::thread::sleep(Duration::from_micros(fastrand::u64(..3_000)));
    let made = cx.complete(|tx| {
        book(tx, &id, transfer.from, -transfer.amount)?;
        if fastrand::u8(..) < 8 {
            // Half of the transfer is booked: that is rolled back, and the task is tried again.
            return Err(Failure::from("the pen is out of ink"));
        }
        book(tx, &id, transfer.to, transfer.amount)?;
        tx.schedule(Receipt {
            transfer: id.clone(),
        })?;
        Ok(Outcome::done())
    });
    say(&format!("ended {id}"))?;
    made
}

fn book(
    tx: &Tx<'_>,
    transfer: &str,
    account: i64,
    change: i64,
) -> std::result::Result<(), Failure> {
    let sql = tx.sqlite()?;
    sql.prepare_cached("UPDATE accounts SET balance = balance + ?2 WHERE id = ?1")?
        .execute((account, change))?;
    sql.prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3)")?
        .execute((transfer, account, change))?;
    Ok(())
}

/// Prints a line for the parent, in one write: lines written before a kill are not lost.
fn say(line: &str) -> std::io::Result<()> {
    std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
}
