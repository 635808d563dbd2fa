//! The place inside a value where encoding or decoding failed.

use std::cell::OnceCell;
use std::fmt;

/// A place inside a value: a chain of steps from the root, kept on the stack while serde goes down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step,
    /// How many arrays and objects the place is inside.
    pub(super) nesting: usize,
    /// The first place that failed, which is the deepest: an error passes outer places later, on its way up.
    failed: &'p OnceCell<String>,
}

/// One step down.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Root,
    Field(&'static str),
    Index(usize),
    /// The value of a map. Its key is data, so it is not shown.
    Entry,
    Variant(&'static str),
}

impl<'p> Place<'p> {
    pub(super) fn root(failed: &'p OnceCell<String>) -> Self {
        Self {
            parent: None,
            step: Step::Root,
            nesting: 0,
            failed,
        }
    }

    /// A place below, inside `levels` more arrays and objects.
    pub(super) fn below<'c>(&'c self, step: Step, levels: usize) -> Place<'c> {
        Place {
            parent: Some(self),
            step,
            nesting: self.nesting + levels,
            failed: self.failed,
        }
    }

    /// Notes a failure here, unless a deeper place has noted one.
    pub(super) fn note(&self) {
        self.failed.get_or_init(|| self.to_string());
    }
}

/// As a path: `lines[3].price`. Empty for the root.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            is_first = matches!(parent.step, Step::Root);
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) | Step::Variant(name) if is_first => write!(f, "{name}"),
            Step::Field(name) | Step::Variant(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Entry => write!(f, "[..]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_as_a_path_and_the_deepest_one_stays() {
        let failed = OnceCell::new();
        let root = Place::root(&failed);
        let lines = root.below(Step::Field("lines"), 1);
        let third = lines.below(Step::Index(3), 1);
        let price = third.below(Step::Field("price"), 1);
        assert_eq!(price.to_string(), "lines[3].price");
        assert_eq!((root.to_string().as_str(), price.nesting), ("", 3));
        assert_eq!(root.below(Step::Entry, 1).to_string(), "[..]");
        price.note();
        lines.note();
        assert_eq!(failed.get().unwrap(), "lines[3].price");
    }
}
