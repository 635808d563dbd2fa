//! What is known of a dead instance's claims: which of them had been started, and may have killed it.

use std::sync::Arc;

/// Which of a dead instance's claims were started.
#[derive(Debug, Clone)]
pub(crate) enum Evidence {
    /// There is no ledger to ask: every claim counts as started. None is blamed for the death, unless it was the only one, and
    /// not if the claims are copies.
    None { is_copied: bool },
    /// The claims in its ledger, by row and claim number, sorted.
    Ledger(Arc<[(i64, i64)]>),
}

impl Evidence {
    pub(crate) fn was_started(&self, seq: i64, claim_no: i64) -> bool {
        match self {
            Self::None { .. } => true,
            Self::Ledger(started) => started.binary_search(&(seq, claim_no)).is_ok(),
        }
    }
}
