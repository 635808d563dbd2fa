//! Payloads, results and progress: what is accepted comes back, and it comes back as it was.

use punctual::{NewTask, Outcome, Payload, Scheduler};
use serde::{Deserialize, Serialize};

use crate::kit::{LONG, Log};

/// With an odd number of fields that were lost, or changed, on their way once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Invoice {
    gross: f64,
    rate: f32,
    discount: Option<f64>,
}

impl Payload for Invoice {
    const KIND: &'static str = "invoice";
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
