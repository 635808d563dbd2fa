//! The sending side: the payload of a delivery, and the handlers that post it: one that blocks a thread, one that is a future.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::Utc;
use punctual::{
    AsyncContext, AsyncTaskHandler, Failure, Outcome, Payload, RetryPolicy, TaskContext,
    TaskHandler, TaskResult,
};
use serde::{Deserialize, Serialize};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use ureq::http::{HeaderMap, StatusCode};

/// The key with which both sides sign. A real key is drawn for each endpoint and kept secret.
pub(crate) const SECRET: &str = "whsec_YW4gZXhhbXBsZSwgbm90IGEgc2VjcmV0";
/// The number of the attempt, for the receiver's moods. It is not part of the specification.
pub(crate) const HEADER_ATTEMPT: &str = "attempt";
/// How long an answer may take. Short, so that the example is short; 15 to 30 seconds are usual.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);
/// The same for a receiver that takes a second for each.
pub(crate) const SLOW_TIMEOUT: Duration = Duration::from_secs(4);

/// A body to deliver, kept as the signed text, so that every attempt sends the same bytes. Its id is the id of the task.
#[derive(Serialize, Deserialize)]
pub(crate) struct Deliver {
    pub(crate) body: String,
}

impl Payload for Deliver {
    const KIND: &'static str = "webhook.deliver";
}

/// Posts deliveries to one endpoint.
pub(crate) struct Sender {
    url: String,
    key: Webhook,
    agent: ureq::Agent,
}

impl Sender {
    pub(crate) fn new(url: String) -> Result<Self, Box<dyn Error>> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // Loopback connections must not use a proxy from the environment.
            .proxy(None)
            // The specification: a redirect is a failure, and is not followed.
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Ok(Self {
            url,
            key: Webhook::new(SECRET)?,
            agent: config.new_agent(),
        })
    }
}

impl TaskHandler for Sender {
    type Payload = Deliver;

    fn run(&self, deliver: Deliver, cx: &TaskContext) -> TaskResult {
        let id = cx.id().to_string();
        // The time of the attempt, not of the event: receivers refuse old timestamps, against replays.
        let timestamp = Utc::now().timestamp();
        let signature = self.key.sign(&id, timestamp, deliver.body.as_bytes())?;
        let response = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header(HEADER_WEBHOOK_ID, &id)
            .header(HEADER_WEBHOOK_TIMESTAMP, timestamp.to_string())
            .header(HEADER_WEBHOOK_SIGNATURE, &signature)
            .header(HEADER_ATTEMPT, cx.attempt().to_string())
            .send(&deliver.body)?;
        outcome(response.status(), response.headers())
    }

    fn retry_policy(&self) -> RetryPolicy {
        retry_policy()
    }
}

/// Posts deliveries to one endpoint, thousands at a time: each waits for its answer without a thread.
pub(crate) struct AsyncSender {
    url: String,
    key: Webhook,
    client: reqwest::Client,
    in_flight: Arc<InFlight>,
}

/// How many deliveries are in flight.
#[derive(Default)]
pub(crate) struct InFlight {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl InFlight {
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// One of them, also if its future is dropped.
struct Flight<'a>(&'a InFlight);

impl<'a> Flight<'a> {
    fn begin(all: &'a InFlight) -> Self {
        let now = all.now.fetch_add(1, Ordering::SeqCst) + 1;
        all.most.fetch_max(now, Ordering::SeqCst);
        Self(all)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncSender {
    pub(crate) fn new(url: String, in_flight: Arc<InFlight>) -> Result<Self, Box<dyn Error>> {
        let client = reqwest::Client::builder()
            .timeout(SLOW_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            url,
            key: Webhook::new(SECRET)?,
            client,
            in_flight,
        })
    }
}

impl AsyncTaskHandler for AsyncSender {
    type Payload = Deliver;

    async fn run(&self, deliver: Deliver, cx: &AsyncContext) -> TaskResult {
        let _flight = Flight::begin(&self.in_flight);
        let id = cx.id().to_string();
        let timestamp = Utc::now().timestamp();
        let signature = self.key.sign(&id, timestamp, deliver.body.as_bytes())?;
        let response = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header(HEADER_WEBHOOK_ID, &id)
            .header(HEADER_WEBHOOK_TIMESTAMP, timestamp)
            .header(HEADER_WEBHOOK_SIGNATURE, &signature)
            .header(HEADER_ATTEMPT, cx.attempt())
            .body(deliver.body)
            .send()
            .await?;
        outcome(response.status(), response.headers())
    }

    fn retry_policy(&self) -> RetryPolicy {
        retry_policy()
    }
}

/// Short delays, so that the example is short. The default is for real receivers: 20 attempts over about 33 hours.
fn retry_policy() -> RetryPolicy {
    RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1)).jitter(0.5)
}

fn outcome(status: StatusCode, headers: &HeaderMap) -> TaskResult {
    let error = format!("the receiver answered {status}");
    match (status.as_u16(), retry_after(headers)) {
        (200..=299, _) => Ok(Outcome::done()),
        // The specification: after a 410 (Gone) the receiver wants no more deliveries.
        (410, _) => Err(Failure::fatal(error)),
        (_, Some(delay)) => Err(Failure::retry_after(delay, error)),
        _ => Err(error.into()),
    }
}

/// `Retry-After` in seconds; its other form, a date, is left to the retry policy.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
