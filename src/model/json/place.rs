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

/// How many steps are shown at each end of a long path.
const SHOWN: usize = 8;

/// As a path: `lines[3].price`. Empty for the root. Of a long path the middle is left out: `a.b…[3].price`.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = std::iter::successors(Some(self), |place| place.parent);
        let below_root = places.take_while(|place| place.parent.is_some());
        let mut steps: Vec<Step> = below_root.map(|place| place.step).collect();
        steps.reverse();
        let hidden = SHOWN..steps.len().saturating_sub(SHOWN);
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                _ if hidden.start == index && !hidden.is_empty() => write!(f, "…")?,
                _ if hidden.contains(&index) => {}
                Step::Field(name) | Step::Variant(name) if index == 0 => write!(f, "{name}")?,
                Step::Field(name) | Step::Variant(name) => write!(f, ".{name}")?,
                Step::Index(number) => write!(f, "[{number}]")?,
                Step::Entry => write!(f, "[..]")?,
                Step::Root => {}
            }
        }
        Ok(())
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

    #[test]
    fn of_a_long_path_both_ends_are_shown() {
        fn deeper(place: &Place<'_>, levels: usize) -> String {
            match levels {
                0 => place.below(Step::Field("price"), 1).to_string(),
                _ => deeper(&place.below(Step::Index(levels), 1), levels - 1),
            }
        }
        let failed = OnceCell::new();
        let root = Place::root(&failed);
        let items = root.below(Step::Field("items"), 1);
        let short = "items[14][13][12][11][10][9][8][7][6][5][4][3][2][1].price";
        assert_eq!(deeper(&items, 14), short);
        let long = "items[126][125][124][123][122][121][120]…[7][6][5][4][3][2][1].price";
        assert_eq!(deeper(&items, 126), long);
    }
}
