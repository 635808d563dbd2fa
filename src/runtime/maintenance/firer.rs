//! Fires recurrences: their slots that are due make tasks. Whichever process comes first does it; there is no leader.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::error::Result;
use crate::log::log;
use crate::model::op::Op;
use crate::model::query::Query;
use crate::model::recurrence::event::{RecurrenceEvent, RecurrenceEventKind};
use crate::runtime::service::{Next, Service};
use crate::sync::lock;
use crate::time::Timestamp;

/// The most recurrences that one transaction fires. Other writers have their turn before the next.
const CHUNK: usize = 200;
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// How far the clock may be set back without a word: corrections of a few seconds are common.
const MAX_BACK: Duration = Duration::from_secs(60);
/// How often to look again whether the clock has come to the slots that are decided.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The firer.
#[derive(Debug)]
pub(crate) struct Firer {
    client: Client,
    /// Until when it rests after an error.
    rests_until: Option<Timestamp>,
    ahead: Ahead,
    /// The latest time that it was called at since it last looked for decided slots that are still to come.
    latest: Timestamp,
    /// When it last looked for these; `None`: it is to look now.
    looked_at: Option<Timestamp>,
}

/// Recurrences of which slots are decided that are still to come.
pub(crate) type Ahead = Arc<Mutex<Vec<String>>>;

impl Firer {
    pub(crate) fn new(client: Client, ahead: Ahead) -> Self {
        Self {
            client,
            rests_until: None,
            ahead,
            latest: Timestamp::MIN,
            looked_at: None,
        }
    }

    /// Fires a chunk of what is due.
    fn fire(&self, now: Timestamp) -> Result<()> {
        let op = Op::Fire { limit: CHUNK };
        self.client.store.apply(now, vec![op]).map(|_| ())
    }

    /// Looks for slots that are decided and still to come: at the start, after the clock was set back, and every minute as long
    /// as there are any.
    fn look_ahead(&mut self, now: Timestamp) {
        let is_set_back = now + MAX_BACK < self.latest;
        self.latest = self.latest.max(now);
        let looks_again = |looked_at: Timestamp| {
            is_set_back || now.since(looked_at) >= LOOK_EVERY && !lock(&self.ahead).is_empty()
        };
        if !self.looked_at.is_none_or(looks_again) {
            return;
        }
        (self.latest, self.looked_at) = (now, Some(now));
        let mut found = match self.client.store.read(Query::DecidedAfter(now + MAX_BACK)) {
            Ok(answer) => answer.decided_after(),
            Err(error) => {
                log!(warn, %error, "cannot look for recurrences that are ahead of the clock");
                self.looked_at = None;
                return;
            }
        };
        found.sort_unstable();
        let mut ahead = lock(&self.ahead);
        let news = found.iter().filter(|(name, _)| !ahead.contains(name));
        let events = news.map(|(name, decided)| {
            log!(warn, recurrence = %name, "slots are decided that are still to come: the clock was ahead");
            RecurrenceEvent {
                recurrence: name.as_str().into(),
                kind: RecurrenceEventKind::ClockBehind {
                    decided: decided.to_utc(),
                },
                at: now,
            }
        });
        let events = events.collect();
        *ahead = found.into_iter().map(|(name, _)| name).collect();
        drop(ahead);
        let signals = self.client.store.signals();
        signals.call(signals.recurrence_subscriptions().publish(events));
    }
}

impl Service for Firer {
    fn run_once(&mut self, now: Timestamp) -> Next {
        self.look_ahead(now);
        let due = |client: &Client| client.store.lanes().recurrence_at;
        let Some(at) = due(&self.client) else {
            return Next::Notified;
        };
        // The second condition: setting the clock back must not delay the next try.
        let rests = |until: &Timestamp| now < *until && *until <= now + AFTER_ERROR;
        if let Some(until) = self.rests_until.filter(rests) {
            return Next::At(until);
        }
        self.rests_until = None;
        if at > now {
            return Next::At(at);
        }
        if let Err(error) = self.fire(now) {
            log!(warn, %error, "cannot make the tasks of recurrences; trying again");
            self.rests_until = Some(now + AFTER_ERROR);
            return Next::At(now + AFTER_ERROR);
        }
        Next::at(due(&self.client))
    }
}
