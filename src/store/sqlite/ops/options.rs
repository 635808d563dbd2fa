//! Options that few tasks have, as JSON in one nullable column.

use crate::model::task::Options;

pub(crate) fn encode(options: &Options) -> Vec<u8> {
    serde_json::to_vec(options).expect("options of a checked task can be encoded")
}

/// The options of a task; `None`: all at their defaults.
///
/// # Errors
///
/// What is wrong with the task, if its options are damaged.
pub(crate) fn decode(stored: Option<&[u8]>) -> Result<Option<Options>, &'static str> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    serde_json::from_slice(stored)
        .map(Some)
        .map_err(|_| "its options cannot be decoded")
}
