//! Payloads and results are nobody's business: they are in no log, no error and no `Debug`.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::time::Duration;

use punctual::testing::TestClock;
use punctual::{Edit, Filter, NewTask, Outcome, Payload, Received, Scheduler};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECRET: &str = "hunter2";

#[derive(Serialize, Deserialize)]
struct Login {
    password: String,
}

impl Payload for Login {
    const KIND: &'static str = "login";
}

thread_local! {
    /// What this thread has logged, if anybody wants to know.
    static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Writes down what is logged, at every level, by threads that want it. It serves the whole process: which places log is
/// decided once for all of its threads.
struct Log;

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = format!("{}={value:?} ", field.name());
        LOGGED.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.push_str(&shown);
            }
        });
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Log);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Log);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Log);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn payloads_and_results_are_in_no_log_no_error_and_no_debug() {
    tracing::subscriber::set_global_default(Log).unwrap();
    LOGGED.set(Some(String::new()));
    let clock = TestClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let mut shown = String::new();
    {
        let mut scheduler = Scheduler::in_memory()
            .handler_fn(|login: Login, cx| match cx.attempt() {
                1 => Err("not yet".into()),
                2 => panic!("not yet"),
                _ => {
                    cx.progress(&login.password)?;
                    Outcome::with(&login.password)
                }
            })
            .stepped(&clock)
            .unwrap();
        let login = || Login {
            password: SECRET.to_owned(),
        };
        let task = NewTask::new(login());
        write!(shown, "{task:?}").unwrap();
        let id = scheduler.schedule(task).unwrap().id();
        // A payload that the handler cannot decode, though it is its kind.
        let other = NewTask::with_kind(Login::KIND, SECRET);
        scheduler.schedule(other).unwrap();
        let events = scheduler.events();
        scheduler.edit(id, Edit::new().payload(&login())).unwrap();
        scheduler.advance(Duration::from_secs(60));
        assert!(
            scheduler
                .get(id)
                .unwrap()
                .unwrap()
                .result::<String>()
                .unwrap()
                .is_some()
        );
        for task in scheduler.list(&Filter::all()).unwrap() {
            write!(shown, "{task:?} {:?}", task.error()).unwrap();
            write!(shown, "{:?}", task.payload::<u8>().unwrap_err()).unwrap();
            write!(shown, "{:?}", scheduler.history(task.id()).unwrap()).unwrap();
        }
        while let Received::Event(event) = events.try_next() {
            write!(shown, "{event:?}").unwrap();
        }
        let edit = Edit::new().payload(&login());
        write!(shown, "{edit:?} {:?}", Outcome::with(SECRET).unwrap()).unwrap();
    }
    let log = LOGGED.take().unwrap();
    for logged in [
        "kind=login",
        "failed",
        "panicked",
        "returned",
        "cannot decode",
    ] {
        assert!(log.contains(logged), "{logged} was logged");
    }
    assert!(!log.contains(SECRET));
    assert!(!shown.contains(SECRET), "{shown}");
}
