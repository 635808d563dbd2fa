//! Shared by the benches of single calls: a plain task, and a folder on a real disk.

use punctual::{NewTask, Payload};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// A payload of about 100 bytes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    user: u64,
    text: String,
}

impl Payload for Note {
    const KIND: &'static str = "note";
}

/// A task that is due now.
pub(crate) fn note() -> NewTask {
    NewTask::new(Note {
        user: 4_711,
        text: "the parcel is at the neighbour's, third floor on the left, until eight".into(),
    })
}

/// A fresh folder in the build directory, because the folder for temporary files may be in memory.
pub(crate) fn folder() -> TempDir {
    let parent = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(parent).expect("the disk has room for a folder")
}
