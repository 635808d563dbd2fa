//! An order and the task that ships it are one commit. What the handler writes, the follow-up task and the completion are
//! another. So each order is shipped exactly once, whenever the process dies.
//!
//! `cargo run --example transaction`

use std::time::Duration;

use punctual::{Error, NewTask, Outcome, Payload, Scheduler, TaskState};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ship {
    order: i64,
}

impl Payload for Ship {
    const KIND: &'static str = "ship";
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let scheduler = Scheduler::builder(dir.path().join("shop.db"))
        .handler_fn(|ship: Ship, cx| {
            cx.complete(|tx| {
                let sql = "UPDATE orders SET shipped = shipped + 1 WHERE id = ?1";
                tx.sqlite()?.execute(sql, [ship.order])?;
                let day = Duration::from_secs(24 * 3600);
                tx.schedule(NewTask::with_kind("ask-for-a-review", &ship.order).after(day))?;
                Ok(Outcome::done())
            })
        })
        .start()?;
    scheduler.transaction(|tx| {
        tx.sqlite()?.execute_batch(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE, shipped INTEGER DEFAULT 0)",
        )?;
        Ok::<_, Error>(())
    })?;

    let place_order = |item: &str| {
        scheduler.transaction(|tx| {
            let sql = "SELECT ifnull(max(id), 0) + 1 FROM orders";
            let order = tx.sqlite()?.query_row(sql, [], |row| row.get(0))?;
            let task = tx.schedule(Ship { order })?;
            tx.sqlite()?.execute(
                "INSERT INTO orders (id, item) VALUES (?1, ?2)",
                (order, item),
            )?;
            Ok::<_, Error>(task.id())
        })
    };
    let task = place_order("a kettle")?;
    let ended = scheduler
        .wait(task, Duration::from_secs(10))?
        .ok_or("it does not end")?;
    assert_eq!(ended.state(), TaskState::Completed);
    // The table refuses the second order, so its task is not stored either.
    let refused = place_order("a kettle").unwrap_err();
    println!("refused: {refused}");

    let (orders, shipped): (i64, i64) = scheduler.transaction(|tx| {
        let sql = "SELECT count(*), sum(shipped) FROM orders";
        Ok::<_, Error>(
            tx.sqlite()?
                .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?,
        )
    })?;
    assert_eq!((orders, shipped, scheduler.stats()?.total()), (1, 1, 2));
    Ok(())
}
