//! W5 and W5b: storing tasks while workers run them.

use std::path::Path;
use std::sync::Arc;

use punctual::{Durability, Scheduler};

use crate::bare::Ids;
use crate::insert::{self, Shared, Single};
use crate::ours::{self, FinishLine, Note, View};
use crate::pairs::{Slice, Subject};
use crate::{Result, Run};

/// The least number of tasks that a side stores, in all slices together.
const TASKS: u64 = 20_000;

/// A running scheduler, and a view of its file.
struct Running {
    scheduler: Scheduler,
    line: Arc<FinishLine>,
    view: View,
    stored: u64,
}

impl Running {
    fn new(path: &Path) -> Result<Self> {
        let line = FinishLine::new();
        Ok(Self {
            scheduler: ours::scheduler::<Note>(path, &line)?,
            line,
            view: View::new(path)?,
            stored: 0,
        })
    }

    /// Measured from the first call until the file shows all tasks completed.
    fn store(&mut self, tasks: u64, store: impl FnOnce(&Scheduler) -> Result<()>) -> Result<Slice> {
        self.stored += tasks;
        self.line.expect(tasks);
        Slice::of(tasks, || {
            store(&self.scheduler)?;
            self.line.wait(&self.view)
        })
    }

    fn check(&self) -> Result<()> {
        self.view.check(ours::COMPLETED, self.stored)
    }
}

pub(crate) fn w5(run: &mut Run) -> Result<()> {
    let full = Durability::PowerLoss;
    let dir = tempfile::tempdir_in(&run.folder)?;
    let mut ours = Running::new(&dir.path().join("ours.db"))?;
    let mut limit = Single::new(&dir.path().join("limit.db"), full, Ids::Unique)?;
    let mut lean = Single::new(&dir.path().join("lean.db"), full, Ids::Unchecked)?;
    run.paired(
        &subject("W5", 0.8),
        &mut |tasks| ours.store(tasks, |client| insert::one_by_one(client, tasks)),
        &mut |tasks| limit.store(tasks),
        Some(&mut |tasks| lean.store(tasks)),
    )?;
    ours.check()?;
    limit.check()?;
    lean.check()?;
    Ok(())
}

pub(crate) fn w5b(run: &mut Run) -> Result<()> {
    let dir = tempfile::tempdir_in(&run.folder)?;
    let payload = insert::payload()?;
    let mut ours = Running::new(&dir.path().join("ours.db"))?;
    let mut limit = Shared::new(&dir.path().join("limit.db"), Ids::Unique, &payload)?;
    let mut lean = Shared::new(&dir.path().join("lean.db"), Ids::Unchecked, &payload)?;
    run.paired(
        &subject("W5b", 0.5),
        &mut |tasks| {
            ours.store(tasks, |client| {
                ours::by_threads(client, tasks, &ours::note);
                Ok(())
            })
        },
        &mut |tasks| limit.store(tasks),
        Some(&mut |tasks| lean.store(tasks)),
    )?;
    ours.check()?;
    limit.check()?;
    lean.check()?;
    Ok(())
}

fn subject(workload: &'static str, at_least: f64) -> Subject {
    Subject {
        workload,
        setting: "FULL".into(),
        min_tasks: TASKS,
        at_least: Some(at_least),
        note: Some("the limit only stores".into()),
        ..Subject::default()
    }
}
