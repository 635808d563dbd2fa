//! W1, W2 and W3: storing tasks, one after the other, from many threads, and in bulk.

use std::path::Path;

use punctual::rusqlite::Connection;
use punctual::{Client, Durability};

use crate::bare::{self, Ids, New};
use crate::group::Group;
use crate::ours::{self, Make, Note, View};
use crate::pairs::{Slice, Subject};
use crate::{Result, Run};

/// A file of ours, and how many tasks it must hold.
pub(crate) struct Ours {
    client: Client,
    view: View,
    stored: u64,
}

impl Ours {
    pub(crate) fn new(path: &Path, durability: Durability) -> Result<Self> {
        Ok(Self {
            client: ours::client(path, durability)?,
            view: View::new(path)?,
            stored: 0,
        })
    }

    /// Stores each task once the one before is durable.
    fn one_by_one(&mut self, tasks: u64) -> Result<Slice> {
        self.stored += tasks;
        Slice::of(tasks, || one_by_one(&self.client, tasks))
    }

    pub(crate) fn by_threads(&mut self, tasks: u64, make: Make<'_>) -> Result<Slice> {
        self.stored += tasks;
        Slice::of(tasks, || {
            ours::by_threads(&self.client, tasks, make);
            Ok(())
        })
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.view.check(ours::PENDING, self.stored)
    }
}

pub(crate) fn one_by_one(client: &Client, tasks: u64) -> Result<()> {
    for _ in 0..tasks {
        client.schedule(ours::note())?;
    }
    Ok(())
}

/// The limit's file for one caller, and how many tasks it must hold.
pub(crate) struct Single {
    conn: Connection,
    payload: Vec<u8>,
    stored: u64,
}

impl Single {
    pub(crate) fn new(path: &Path, durability: Durability, ids: Ids) -> Result<Self> {
        Ok(Self {
            conn: bare::open(path, durability, ids)?,
            payload: payload()?,
            stored: 0,
        })
    }

    pub(crate) fn store(&mut self, tasks: u64) -> Result<Slice> {
        self.stored += tasks;
        Slice::of(tasks, || bare::one_by_one(&self.conn, tasks, &self.payload))
    }

    pub(crate) fn check(&self) -> Result<()> {
        bare::check(&self.conn, bare::PENDING, self.stored)
    }
}

/// The limit's file for many callers, and how many tasks it must hold.
pub(crate) struct Shared<'a> {
    group: Group<'a>,
    payload: &'a [u8],
    stored: u64,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(path: &Path, ids: Ids, payload: &'a [u8]) -> Result<Self> {
        Ok(Self {
            group: Group::new(bare::open(path, Durability::PowerLoss, ids)?),
            payload,
            stored: 0,
        })
    }

    pub(crate) fn store(&mut self, tasks: u64) -> Result<Slice> {
        self.stored += tasks;
        Slice::of(tasks, || {
            ours::shared(tasks, || {
                let task = New::now(self.payload);
                self.group.put(task).expect("the disk has room");
            });
            Ok(())
        })
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        let stored = self.stored;
        bare::check(self.group.conn(), bare::PENDING, stored)
    }
}

/// The bytes that our payload is stored as.
pub(crate) fn payload() -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Note::new())?)
}

pub(crate) fn w1(run: &mut Run) -> Result<()> {
    for (setting, durability, at_least) in [
        ("FULL", Durability::PowerLoss, 0.85),
        ("NORMAL", Durability::ProcessCrash, 0.5),
    ] {
        let dir = tempfile::tempdir_in(&run.folder)?;
        let mut ours = Ours::new(&dir.path().join("ours.db"), durability)?;
        let mut limit = Single::new(&dir.path().join("limit.db"), durability, Ids::Unique)?;
        let mut lean = Single::new(&dir.path().join("lean.db"), durability, Ids::Unchecked)?;
        run.paired(
            &Subject {
                workload: "W1",
                setting: setting.into(),
                at_least: Some(at_least),
                ..Subject::default()
            },
            &mut |tasks| ours.one_by_one(tasks),
            &mut |tasks| limit.store(tasks),
            Some(&mut |tasks| lean.store(tasks)),
        )?;
        ours.check()?;
        limit.check()?;
        lean.check()?;
    }
    Ok(())
}

pub(crate) fn w2(run: &mut Run) -> Result<()> {
    let full = Durability::PowerLoss;
    let dir = tempfile::tempdir_in(&run.folder)?;
    let payload = payload()?;
    let mut ours = Ours::new(&dir.path().join("ours.db"), full)?;
    let mut limit = Shared::new(&dir.path().join("limit.db"), Ids::Unique, &payload)?;
    let mut lean = Shared::new(&dir.path().join("lean.db"), Ids::Unchecked, &payload)?;
    run.paired(
        &Subject {
            workload: "W2",
            setting: "FULL".into(),
            at_least: Some(0.9),
            ..Subject::default()
        },
        &mut |tasks| ours.by_threads(tasks, &ours::note),
        &mut |tasks| limit.store(tasks),
        Some(&mut |tasks| lean.store(tasks)),
    )?;
    let mut single = Ours::new(&dir.path().join("single.db"), full)?;
    run.paired(
        &Subject {
            workload: "W2",
            setting: "FULL over W1".into(),
            at_least: Some(3.5),
            note: Some("the limit of this row is our W1".into()),
            ..Subject::default()
        },
        // Four times as many, so that the slices of both take about as long.
        &mut |tasks| ours.by_threads(4 * tasks, &ours::note),
        &mut |tasks| single.one_by_one(tasks),
        None,
    )?;
    ours.check()?;
    limit.check()?;
    lean.check()?;
    single.check()?;
    Ok(())
}

pub(crate) fn w3(run: &mut Run) -> Result<()> {
    let tasks = if run.is_small { 2_000 } else { 100_000 };
    for (setting, batch) in [("in one", tasks), ("by 1,000", 1_000)] {
        let dir = tempfile::tempdir_in(&run.folder)?;
        run.paired(
            &Subject {
                workload: "W3",
                setting: format!("FULL, {tasks} {setting}"),
                tasks: Some(tasks),
                at_least: Some(0.5),
                ..Subject::default()
            },
            &mut |tasks| bulk_ours(dir.path(), tasks, batch),
            &mut |tasks| bulk_limit(dir.path(), tasks, batch, Ids::Unique),
            Some(&mut |tasks| bulk_limit(dir.path(), tasks, batch, Ids::Unchecked)),
        )?;
    }
    Ok(())
}

/// Stores in bulk into a fresh file. Only the calls are timed.
fn bulk_ours(folder: &Path, tasks: u64, batch: u64) -> Result<Slice> {
    let dir = tempfile::tempdir_in(folder)?;
    let path = dir.path().join("tasks.db");
    let client = ours::client(&path, Durability::PowerLoss)?;
    let slice = Slice::of(tasks, || {
        for _ in 0..tasks / batch {
            client.schedule_many((0..batch).map(|_| ours::note()))?;
        }
        Ok(())
    })?;
    View::new(&path)?.check(ours::PENDING, tasks)?;
    Ok(slice)
}

fn bulk_limit(folder: &Path, tasks: u64, batch: u64, ids: Ids) -> Result<Slice> {
    let dir = tempfile::tempdir_in(folder)?;
    let conn = bare::open(&dir.path().join("tasks.db"), Durability::PowerLoss, ids)?;
    let payload = payload()?;
    let slice = Slice::of(tasks, || bare::by_batches(&conn, tasks, batch, &payload))?;
    bare::check(&conn, bare::PENDING, tasks)?;
    Ok(slice)
}
