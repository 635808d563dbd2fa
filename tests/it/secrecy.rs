//! Payloads and results are nobody's business: they are in no log, no error and no `Debug`.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punctual::testing::TestClock;
use punctual::{Edit, Filter, NewTask, Outcome, Payload, Scheduler};
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

/// Writes down everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut log = self.0.lock().unwrap();
        write!(log, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn payloads_and_results_are_in_no_log_no_error_and_no_debug() {
    let log = Log::default();
    let clock = TestClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let mut shown = String::new();
    // For the whole process: which places log is decided once for all of its threads.
    tracing::subscriber::set_global_default(log.clone()).unwrap();
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
        let other = NewTask::with_kind(Login::KIND, &[SECRET]);
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
        while let Some(event) = events.try_next() {
            write!(shown, "{event:?}").unwrap();
        }
        let edit = Edit::new().payload(&login());
        write!(shown, "{edit:?} {:?}", Outcome::with(SECRET).unwrap()).unwrap();
    }
    let log = log.0.lock().unwrap();
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
