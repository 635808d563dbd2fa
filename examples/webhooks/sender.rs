//! The sending side: the payload of a delivery, and the handler that posts it.

use std::error::Error;
use std::time::Duration;

use chrono::Utc;
use punctual::{Failure, Outcome, Payload, RetryPolicy, TaskContext, TaskHandler, TaskResult};
use serde::{Deserialize, Serialize};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use ureq::http::HeaderMap;

/// The key with which both sides sign. A real key is drawn for each endpoint and kept secret.
pub(crate) const SECRET: &str = "whsec_YW4gZXhhbXBsZSwgbm90IGEgc2VjcmV0";
/// The number of the attempt, for the receiver's moods. It is not part of the specification.
pub(crate) const HEADER_ATTEMPT: &str = "attempt";
/// How long an answer may take. Short, so that the example is short; 15 to 30 seconds are usual.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);

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
        let status = response.status();
        let error = format!("the receiver answered {status}");
        match (status.as_u16(), retry_after(response.headers())) {
            (200..=299, _) => Ok(Outcome::done()),
            // The specification: after a 410 (Gone) the receiver wants no more deliveries.
            (410, _) => Err(Failure::fatal(error)),
            (_, Some(delay)) => Err(Failure::retry_after(delay, error)),
            _ => Err(error.into()),
        }
    }

    /// Short delays, so that the example is short. The default is for real receivers: 20 attempts over about 33 hours.
    fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1)).jitter(0.5)
    }
}

/// `Retry-After` in seconds; its other form, a date, is left to the retry policy.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
