//! Logging to the program's own `tracing` subscriber. If the subscriber panics, the crate goes on.

/// Logs at a level: `log!(warn, %error, "cannot settle")`.
macro_rules! log {
    ($level:ident, $($what:tt)+) => {{
        let event = || tracing::$level!($($what)+);
        // A panic of the subscriber cannot be logged.
        let _ = $crate::panics::survive(event);
    }};
}
pub(crate) use log;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    static EVENTS: AtomicUsize = AtomicUsize::new(0);

    struct Panics;

    impl Subscriber for Panics {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            EVENTS.fetch_add(1, Ordering::SeqCst);
            panic!("a subscriber that panics");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn p12_a_subscriber_that_panics_ends_nothing() {
        tracing::subscriber::with_default(Panics, || log!(warn, cause = "none", "told"));
        assert_eq!(EVENTS.load(Ordering::SeqCst), 1);
    }
}
