//! Declared sets: what of them is brought in line, and what stays.

use super::*;

on_every_backend![
    p10_a_declared_set_is_brought_in_line_and_nothing_else,
    p10_an_older_revision_of_a_set_changes_nothing,
    p10_what_a_set_declares_no_more_is_paused_until_it_is_declared_again,
    p10_a_set_that_declares_a_recurrence_no_more_takes_no_slot_that_was_due_before,
    p10_a_caller_s_pause_stays_whatever_had_paused_it_before,
    p10_what_is_declared_no_more_and_is_resumed_stays_so,
    p10_what_is_declared_no_more_may_be_declared_by_another_set,
];

impl Kit {
    fn try_declare(&self, set: RecurrenceSet) -> Declaring {
        let declaration = set.prepare(self.now).unwrap();
        self.apply(Op::Declare(Box::new(declaration))).declared()
    }

    /// Created, changed, unchanged, undeclared; `None`: it is outdated.
    fn declare(&self, set: RecurrenceSet) -> Option<[usize; 4]> {
        match self.try_declare(set) {
            Declaring::Done(declared) if declared.is_outdated() => None,
            Declaring::Done(declared) => Some([
                declared.created_count(),
                declared.changed_count(),
                declared.unchanged_count(),
                declared.undeclared_count(),
            ]),
            refused @ Declaring::Refused { .. } => panic!("{refused:?}"),
        }
    }
}

fn set(names: &[&str]) -> RecurrenceSet {
    let empty = RecurrenceSet::new("set").undeclared(Undeclared::Remove);
    names
        .iter()
        .fold(empty, |set, name| set.recurrence(hourly(name)))
}

fn p10_a_declared_set_is_brought_in_line_and_nothing_else(kit: &mut Kit) {
    kit.recur(hourly("by hand"));
    kit.recur(hourly("joins"));
    assert_eq!(kit.declare(set(&["a", "b", "joins"])), Some([2, 0, 1, 0]));
    assert_eq!(kit.declare(set(&["a", "b", "joins"])), Some([0, 0, 3, 0]));
    kit.edit("a", RecurrenceEdit::new().priority(0));
    kit.act("b", RecurrenceAction::Pause);
    assert_eq!(kit.declare(set(&["a", "b"])), Some([0, 0, 2, 1]));
    assert_eq!(kit.recurrence("a").priority(), 0, "what was edited stays");
    assert!(kit.recurrence("b").is_paused(), "what was paused stays");
    assert!(kit.is_unknown("joins"));
    assert!(!kit.recurrence("by hand").is_paused());
    let other = RecurrenceSet::new("other")
        .recurrence(hourly("c"))
        .recurrence(hourly("a"));
    let refused = kit.try_declare(other);
    assert!(matches!(refused, Declaring::Refused { .. }), "{refused:?}");
    assert!(kit.is_unknown("c"), "nothing of it is stored");
    let changed = set(&["b"]).recurrence(hourly("a").grace(S));
    assert_eq!(kit.declare(changed), Some([0, 1, 1, 0]));
    assert_eq!(kit.recurrence("a").priority(), 5);
}

fn p10_an_older_revision_of_a_set_changes_nothing(kit: &mut Kit) {
    assert_eq!(
        kit.declare(set(&["a", "b"]).revision(2)),
        Some([2, 0, 0, 0])
    );
    assert_eq!(kit.declare(set(&["c"]).revision(1)), None);
    assert!(kit.is_unknown("c"));
    assert!(!kit.recurrence("a").is_paused());
    assert_eq!(kit.declare(set(&["a"]).revision(2)), Some([0, 0, 1, 1]));
    assert_eq!(kit.declare(set(&["c"]).revision(3)), Some([1, 0, 0, 1]));
}

fn p10_what_a_set_declares_no_more_is_paused_until_it_is_declared_again(kit: &mut Kit) {
    let set = |names| set(names).undeclared(Undeclared::Pause);
    kit.declare(set(&["a", "b"]));
    kit.fire_at(1);
    assert_eq!(kit.declare(set(&["b"])), Some([0, 0, 1, 1]));
    assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Undeclared));
    assert!(
        kit.store().health().stopped_recurrences().is_empty(),
        "it is meant"
    );
    kit.fire_at(2);
    assert_eq!(kit.declare(set(&["b"])), Some([0, 0, 1, 0]));
    assert_eq!(kit.declare(set(&["a", "b"])), Some([0, 1, 1, 0]));
    kit.fire_at(3);
    assert_eq!(
        (kit.hours("a"), kit.hours("b")),
        (vec![1, 3], vec![1, 2, 3])
    );
}

fn p10_a_set_that_declares_a_recurrence_no_more_takes_no_slot_that_was_due_before(kit: &mut Kit) {
    let hourly = || hourly("a").missed(Missed::All { max: 9 });
    kit.declare(RecurrenceSet::new("set").recurrence(hourly()));
    kit.now = NOW + 2 * HOUR + HOUR / 2;
    let none = RecurrenceSet::new("set").undeclared(Undeclared::Pause);
    assert_eq!(kit.declare(none), Some([0, 0, 0, 1]));
    assert_eq!(kit.hours("a"), [1, 2]);
    kit.fire_at(3);
    kit.declare(RecurrenceSet::new("set").recurrence(hourly()));
    assert_eq!(
        explained(kit, "a", 5),
        ["1 made 1", "2 made 2", "3 Paused", "4 upcoming"]
    );
}

fn p10_a_caller_s_pause_stays_whatever_had_paused_it_before(kit: &mut Kit) {
    let set = |names| set(names).undeclared(Undeclared::Pause);
    kit.declare(set(&["a"]));
    kit.declare(set(&[]));
    let paused_at = kit.recurrence("a").paused_at();
    kit.later(S);
    kit.act("a", RecurrenceAction::Pause);
    assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Caller));
    assert_eq!(kit.recurrence("a").paused_at(), paused_at);
    kit.declare(set(&["a"]));
    assert_eq!(kit.recurrence("a").paused_by(), Some(PausedBy::Caller));
    kit.now = NOW;
    kit.recur(hourly("b").pause_after_failures(1));
    kit.fire_at(1);
    kit.settle(&kit.claim_one(), returned(Err(Failure::fatal("no"))));
    assert_eq!(kit.store().health().stopped_recurrences(), ["b"]);
    kit.act("b", RecurrenceAction::Pause);
    assert!(
        kit.store().health().stopped_recurrences().is_empty(),
        "it is known"
    );
    kit.fire_at(3);
    assert_eq!(kit.hours("b"), [1]);
}

fn p10_what_is_declared_no_more_and_is_resumed_stays_so(kit: &mut Kit) {
    kit.declare(RecurrenceSet::new("s").recurrence(hourly("a")));
    kit.declare(RecurrenceSet::new("s"));
    kit.act("a", RecurrenceAction::Resume);
    // The program starts again, unchanged.
    kit.declare(RecurrenceSet::new("s"));
    assert!(!kit.recurrence("a").is_paused());
}

fn p10_what_is_declared_no_more_may_be_declared_by_another_set(kit: &mut Kit) {
    kit.declare(RecurrenceSet::new("s").recurrence(hourly("a")));
    kit.declare(RecurrenceSet::new("s"));
    let moved = kit.declare(RecurrenceSet::new("t").recurrence(hourly("a")));
    assert_eq!(moved, Some([0, 1, 0, 0]));
    assert!(!kit.recurrence("a").is_paused());
}
