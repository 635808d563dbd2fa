//! Payloads, results and progress: what is accepted comes back, and it comes back as it was.

use punctual::{Edit, ErrorKind, NewTask, Outcome, Payload, Scheduler, TaskState};
use serde::{Deserialize, Serialize};

use crate::kit::{LONG, Log, end_of, file, task};

/// With an odd number of fields that were lost, or changed, on their way once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Invoice {
    gross: f64,
    rate: f32,
    discount: Option<f64>,
}

impl Payload for Invoice {
    const KIND: &'static str = "invoice";
    const VERIFY: bool = false;
}

fn invoice(gross: f64) -> Invoice {
    Invoice {
        gross,
        rate: 0.1,
        discount: Some(0.999_999_999_999_999_9),
    }
}

/// 11% of the doubles between 0 and 1 came back with another last bit, and 15% of prices with 19% added.
#[test]
fn a_handler_gets_the_number_that_was_scheduled_and_its_result_is_the_one_it_returned() {
    let got = Log::new();
    let log = got.clone();
    let scheduler = Scheduler::in_memory()
        .handler_fn(move |invoice: Invoice, cx| {
            log.push(invoice.gross.to_bits());
            cx.progress(&invoice)?;
            Outcome::with(&invoice.gross)
        })
        .workers(1)
        .start()
        .unwrap();
    let prices: Vec<f64> = (0..200).map(|cents| f64::from(cents) * 1.19).collect();
    let tasks = prices.iter().map(|gross| NewTask::new(invoice(*gross)));
    for (scheduled, gross) in scheduler.schedule_many(tasks).unwrap().iter().zip(&prices) {
        let ended = scheduler.wait(scheduled.id(), LONG).unwrap().unwrap();
        assert_eq!(ended.result::<f64>().unwrap(), Some(*gross));
        let task = ended.task();
        assert_eq!(task.payload::<Invoice>().unwrap(), invoice(*gross));
        assert_eq!(task.progress::<Invoice>().unwrap(), Some(invoice(*gross)));
    }
    let mut got = got.take();
    got.sort_unstable();
    let mut scheduled: Vec<u64> = prices.iter().map(|gross| gross.to_bits()).collect();
    scheduled.sort_unstable();
    assert_eq!(got, scheduled);
}

/// It was stored as `null`, and failed at each of twenty attempts, or was `None` for the handler.
#[test]
fn a_number_that_json_does_not_have_is_refused_at_the_call_by_its_field() {
    let scheduler = Scheduler::in_memory()
        .handler_fn(|invoice: Invoice, cx| {
            let error = cx.progress(&f64::NAN).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Payload);
            Outcome::with(&(invoice.gross / 0.0))
        })
        .retry_policy("invoice", punctual::RetryPolicy::fixed(LONG))
        .start()
        .unwrap();
    let unheard_of = [
        (invoice(f64::NAN), "gross"),
        (
            Invoice {
                discount: Some(f64::INFINITY),
                ..invoice(1.0)
            },
            "discount",
        ),
        (
            Invoice {
                rate: f32::NEG_INFINITY,
                ..invoice(1.0)
            },
            "rate",
        ),
    ];
    let stored = scheduler.schedule(invoice(1.0)).unwrap().id();
    for (payload, field) in unheard_of {
        let calls = [
            scheduler.schedule(payload.clone()).map(drop),
            scheduler
                .schedule(NewTask::with_kind("invoice", &payload))
                .map(drop),
            scheduler.schedule_many([payload.clone()]).map(drop),
            scheduler
                .submit()
                .schedule(payload.clone())
                .wait()
                .map(drop),
            scheduler.edit(stored, Edit::new().payload(&payload)),
        ];
        for refused in calls {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Payload);
            assert!(error.task_id().is_some());
            let text = error.to_string();
            assert!(text.contains(&format!("at `{field}`")), "{text}");
        }
    }
    assert_eq!(scheduler.stats().unwrap().total(), 1, "nothing was stored");
    crate::kit::eventually("the attempt fails", || {
        task(&scheduler, stored).error().is_some()
    });
    let text = task(&scheduler, stored).error().unwrap().to_owned();
    assert!(
        text.contains("result: JSON has no number for inf"),
        "{text}"
    );
}

#[derive(Serialize, Deserialize)]
struct OneWay {
    user: u64,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "what matters is that it is missing in the JSON")]
    token: String,
}

impl Payload for OneWay {
    const KIND: &'static str = "one-way";
    const VERIFY: bool = true;
}

/// `schedule` said `Ok`, and every attempt failed.
#[test]
fn a_type_that_does_not_decode_what_it_encodes_is_refused_when_it_is_verified() {
    let (_dir, path) = file();
    let client = punctual::Client::open(&path).unwrap();
    let one_way = || OneWay {
        user: 7,
        token: "hunter2".into(),
    };
    let error = client.schedule(one_way()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Payload);
    let text = error.to_string();
    assert!(text.contains("missing field `token`"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let stored = client.schedule(NewTask::with_kind("one-way", &7)).unwrap();
    let edited = client.edit(stored.id(), Edit::new().payload(&one_way()));
    assert_eq!(edited.unwrap_err().kind(), ErrorKind::Payload);
    assert_eq!(client.stats().unwrap().total(), 1);
}

/// The default finds such a type in tests and leaves production as fast as it is.
#[test]
fn payloads_are_verified_in_debug_builds_by_default() {
    #[derive(Serialize, Deserialize)]
    struct Plain;
    impl Payload for Plain {
        const KIND: &'static str = "plain";
    }
    assert_eq!(Plain::VERIFY, cfg!(debug_assertions));
}

#[test]
fn a_payload_as_deep_as_can_be_read_runs_and_a_deeper_one_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Deep(serde_json::Value);
    impl Payload for Deep {
        const KIND: &'static str = "deep";
    }
    let deep = |levels| Deep((0..levels).fold(1.into(), |inner, _| serde_json::json!([inner])));
    let scheduler = Scheduler::in_memory()
        .handler_fn(|deep: Deep, _| Outcome::with(&deep.0))
        .start()
        .unwrap();
    let id = scheduler.schedule(deep(127)).unwrap().id();
    assert_eq!(end_of(&scheduler, id).state(), TaskState::Completed);
    let error = scheduler.schedule(deep(128)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Payload);
    assert!(error.to_string().contains("deeper than 127"), "{error}");
}
