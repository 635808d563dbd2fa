//! W9: large payloads, stored from many threads and drained.

use punctual::{Durability, MAX_PAYLOAD_BYTES, NewTask, Payload};
use serde::{Deserialize, Serialize};

use crate::bare::Ids;
use crate::drain::Backlog;
use crate::insert::{Ours, Shared};
use crate::ours::THREADS;
use crate::pairs::Subject;
use crate::{Result, Run};

/// A payload of text: as JSON, the text and two quotes.
#[derive(Serialize, Deserialize)]
struct Text(String);

impl Payload for Text {
    const KIND: &'static str = "text";
}

/// The payload bytes that a drain moves in a slice.
const DRAIN_BYTES: usize = 64 << 20;
const MAX_DRAIN: usize = 20_000;

pub(crate) fn w9(run: &mut Run) -> Result<()> {
    // A fresh file for each slice: large payloads would otherwise fill the disk.
    let folder = run.folder.clone();
    for (name, bytes) in [
        ("1 KiB", 1 << 10),
        ("8 KiB", 8 << 10),
        ("64 KiB", 64 << 10),
        ("1 MiB", MAX_PAYLOAD_BYTES),
    ] {
        let text = "0123456789abcdef".repeat(bytes / 16);
        let text = &text[2..];
        let payload = serde_json::to_vec(text)?;
        assert_eq!(payload.len(), bytes, "two quotes and the text");
        let make = || NewTask::with_kind(Text::KIND, text);
        let subject = |setting: &str, tasks| Subject {
            workload: "W9",
            setting: format!("FULL, {name}, {setting}"),
            tasks,
            payload_bytes: Some(bytes),
            at_least: Some(0.6),
            ..Subject::default()
        };

        let tasks = run.is_small.then_some(THREADS as u64);
        run.paired(
            &subject("as W2", tasks),
            &mut |tasks| {
                let dir = tempfile::tempdir_in(&folder)?;
                let mut ours = Ours::new(&dir.path().join("tasks.db"), Durability::PowerLoss)?;
                ours.by_threads(warm_up(tasks), &make)?;
                let slice = ours.by_threads(tasks, &make)?;
                ours.check()?;
                Ok(slice)
            },
            &mut |tasks| {
                let dir = tempfile::tempdir_in(&folder)?;
                let mut limit = Shared::new(&dir.path().join("tasks.db"), Ids::Unique, &payload)?;
                limit.store(warm_up(tasks))?;
                let slice = limit.store(tasks)?;
                limit.check()?;
                Ok(slice)
            },
            None,
        )?;

        let dir = tempfile::tempdir_in(&run.folder)?;
        let tasks = if run.is_small {
            THREADS
        } else {
            (DRAIN_BYTES / bytes).min(MAX_DRAIN)
        };
        let backlog = Backlog::new(dir.path(), tasks as u64, &make, &payload)?;
        run.paired(
            &subject("as W4", Some(tasks as u64)),
            &mut |_| backlog.ours::<Text>(),
            &mut |_| backlog.limit(Ids::Unique),
            None,
        )?;
    }
    Ok(())
}

/// How many tasks are stored before a slice, so that the log of a fresh file has reached its full length.
fn warm_up(tasks: u64) -> u64 {
    (tasks / 4).max(1)
}
