//! The task whose start is measured: a number, and about 100 bytes in all.

use punctual::Payload;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) number: u64,
    text: String,
}

impl Payload for Work {
    const KIND: &'static str = "work";
}

impl Work {
    pub(crate) fn numbered(number: u64) -> Self {
        Self {
            number,
            text: "x".repeat(72),
        }
    }
}
