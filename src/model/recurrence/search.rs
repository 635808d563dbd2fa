//! A search for a slot: its direction, and what it finds.

use crate::time::Timestamp;

/// What one search for a slot has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Slot(Timestamp),
    /// There is none in this direction.
    Nothing,
    /// None up to this instant, itself included: the search has to go on from there.
    Further(Timestamp),
}

impl Found {
    pub(crate) fn slot(self) -> Option<Timestamp> {
        match self {
            Self::Slot(slot) => Some(slot),
            Self::Nothing | Self::Further(_) => None,
        }
    }
}

/// The direction of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    After,
    Before,
}

impl Way {
    /// Whichever of the two comes first in this direction.
    fn nearer(self, one: Timestamp, other: Timestamp) -> Timestamp {
        match self {
            Self::After => one.min(other),
            Self::Before => one.max(other),
        }
    }

    /// The instant next to `at` against this direction: a search from there finds `at` itself.
    pub(super) fn step_back(self, at: Timestamp) -> Timestamp {
        let step = match self {
            Self::After => -1,
            Self::Before => 1,
        };
        Timestamp::from_micros(at.micros() + step)
    }
}

impl From<Option<Timestamp>> for Found {
    fn from(slot: Option<Timestamp>) -> Self {
        slot.map_or(Self::Nothing, Self::Slot)
    }
}

/// The earlier find in a direction. What lies beyond the end of an unfinished search is not known to be the nearest.
pub(super) fn nearer(way: Way, one: Found, other: Found) -> Found {
    match (one, other) {
        (Found::Nothing, found) | (found, Found::Nothing) => found,
        (Found::Slot(one), Found::Slot(other)) => Found::Slot(way.nearer(one, other)),
        (Found::Further(one), Found::Further(other)) => Found::Further(way.nearer(one, other)),
        (Found::Slot(slot), Found::Further(end)) | (Found::Further(end), Found::Slot(slot)) => {
            if way.nearer(slot, end) == slot {
                Found::Slot(slot)
            } else {
                Found::Further(end)
            }
        }
    }
}
