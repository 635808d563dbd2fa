//! W4: running a file of due tasks until it shows them all completed.

use std::path::{Path, PathBuf};

use punctual::rusqlite::Connection;
use punctual::{Durability, Payload};
use tokio::runtime::Handle;

use crate::bare::{self, Drain, Ids};
use crate::ours::{self, Make, Note, View};
use crate::pairs::{Slice, Subject};
use crate::{Result, Run, futures, insert};

/// Files of due tasks, one for each side. Every slice drains a copy.
pub(crate) struct Backlog {
    folder: PathBuf,
    tasks: u64,
    drain: Drain,
}

impl Backlog {
    pub(crate) fn new(folder: &Path, tasks: u64, make: Make<'_>, payload: &[u8]) -> Result<Self> {
        ours::fill(&folder.join("ours.db"), tasks, make)?;
        for (name, ids) in [("limit.db", Ids::Unique), ("lean.db", Ids::Unchecked)] {
            let conn = bare::open(&folder.join(name), Durability::PowerLoss, ids)?;
            bare::by_batches(&conn, tasks, 1_000, payload)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            tasks,
            drain: Drain::of(payload.len()),
        })
    }

    /// Measured from the start of the scheduler.
    pub(crate) fn ours<P: Payload>(&self) -> Result<Slice> {
        let dir = tempfile::tempdir_in(&self.folder)?;
        let path = ours::copy(&self.folder.join("ours.db"), dir.path())?;
        let view = View::new(&path)?;
        let mut started = None;
        let slice = Slice::of(self.tasks, || {
            started = Some(ours::drain::<P>(&path, self.tasks, &view)?);
            Ok(())
        })?;
        view.check(ours::COMPLETED, self.tasks)?;
        Ok(slice)
    }

    /// The same with futures.
    pub(crate) fn futures(&self, handle: Option<&Handle>) -> Result<Slice> {
        let dir = tempfile::tempdir_in(&self.folder)?;
        let path = ours::copy(&self.folder.join("ours.db"), dir.path())?;
        let view = View::new(&path)?;
        let mut started = None;
        let slice = Slice::of(self.tasks, || {
            started = Some(futures::drain_file(&path, self.tasks, &view, handle)?);
            Ok(())
        })?;
        view.check(ours::COMPLETED, self.tasks)?;
        Ok(slice)
    }

    /// Measured from the opening of the file.
    pub(crate) fn limit(&self, ids: Ids) -> Result<Slice> {
        let dir = tempfile::tempdir_in(&self.folder)?;
        let name = match ids {
            Ids::Unique => "limit.db",
            Ids::Unchecked => "lean.db",
        };
        let path = ours::copy(&self.folder.join(name), dir.path())?;
        let slice = Slice::of(self.tasks, || self.drain.run(&path, ids))?;
        bare::check(&Connection::open(&path)?, bare::COMPLETED, self.tasks)?;
        Ok(slice)
    }
}

pub(crate) fn w4(run: &mut Run) -> Result<()> {
    let tasks = if run.is_small { 1_000 } else { 50_000 };
    let dir = tempfile::tempdir_in(&run.folder)?;
    let backlog = Backlog::new(dir.path(), tasks, &ours::note, &insert::payload()?)?;
    run.paired(
        &Subject {
            workload: "W4",
            setting: format!("FULL, {tasks}"),
            tasks: Some(tasks),
            at_least: Some(0.55),
            ..Subject::default()
        },
        &mut |_| backlog.ours::<Note>(),
        &mut |_| backlog.limit(Ids::Unique),
        Some(&mut |_| backlog.limit(Ids::Unchecked)),
    )?;
    Ok(())
}
