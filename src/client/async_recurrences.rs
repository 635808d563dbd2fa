//! Stored recurrences, for async code.

use std::ops::Range;

use chrono::{DateTime, Utc};

use crate::client::asynchronous::AsyncClient;
use crate::error::Result;
use crate::model::recurrence::edit::RecurrenceEdit;
use crate::model::recurrence::event::RecurrenceEvent;
use crate::model::recurrence::explain::Explanation;
use crate::model::recurrence::filter::{RecurrenceFilter, RecurrencePage};
use crate::model::recurrence::view::{Backfilled, RecurrenceStatus, Triggered};
use crate::store::events::EventStream;

impl AsyncClient {
    /// Returns what can be done with stored recurrences.
    #[must_use]
    pub fn recurrences(&self) -> AsyncRecurrences<'_> {
        AsyncRecurrences(self)
    }
}

/// What can be done with stored recurrences, as [`Recurrences`](crate::Recurrences), for async code. Made by
/// [`AsyncClient::recurrences`].
///
/// Once begun, a call runs to its end even if its future is dropped; before its turn has come it does nothing.
///
/// # Example
///
/// ```
/// use punctual::AsyncClient;
///
/// async fn skip_tonight(client: &AsyncClient) -> punctual::Result<()> {
///     client.recurrences().pause("nightly").await
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AsyncRecurrences<'a>(&'a AsyncClient);

impl AsyncRecurrences<'_> {
    /// As [`Recurrences::get`](crate::Recurrences::get).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::get`](crate::Recurrences::get).
    pub async fn get(self, name: &str) -> Result<Option<RecurrenceStatus>> {
        let name = name.to_owned();
        let read = self.0.read(move |client| client.recurrences().get(&name));
        read.await
    }

    /// As [`Recurrences::list`](crate::Recurrences::list).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::list`](crate::Recurrences::list).
    pub async fn list(self, filter: &RecurrenceFilter) -> Result<RecurrencePage> {
        let filter = filter.clone();
        let read = self
            .0
            .read(move |client| client.recurrences().list(&filter));
        read.await
    }

    /// As [`Recurrences::explain`](crate::Recurrences::explain).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::explain`](crate::Recurrences::explain).
    pub async fn explain(self, name: &str, range: Range<DateTime<Utc>>) -> Result<Explanation> {
        let name = name.to_owned();
        let read = self
            .0
            .read(move |client| client.recurrences().explain(&name, range));
        read.await
    }

    /// As [`Recurrences::pause`](crate::Recurrences::pause).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::pause`](crate::Recurrences::pause).
    pub async fn pause(self, name: &str) -> Result<()> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().pause(&name));
        write.await
    }

    /// As [`Recurrences::resume`](crate::Recurrences::resume).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::resume`](crate::Recurrences::resume).
    pub async fn resume(self, name: &str) -> Result<()> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().resume(&name));
        write.await
    }

    /// As [`Recurrences::remove`](crate::Recurrences::remove).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::remove`](crate::Recurrences::remove).
    pub async fn remove(self, name: &str) -> Result<()> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().remove(&name));
        write.await
    }

    /// As [`Recurrences::trigger`](crate::Recurrences::trigger).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::trigger`](crate::Recurrences::trigger).
    pub async fn trigger(self, name: &str) -> Result<Triggered> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().trigger(&name));
        write.await
    }

    /// As [`Recurrences::edit`](crate::Recurrences::edit).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::edit`](crate::Recurrences::edit).
    pub async fn edit(self, name: &str, edit: RecurrenceEdit) -> Result<()> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().edit(&name, edit));
        write.await
    }

    /// As [`Recurrences::backfill`](crate::Recurrences::backfill).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::backfill`](crate::Recurrences::backfill).
    pub async fn backfill(self, name: &str, range: Range<DateTime<Utc>>) -> Result<Backfilled> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().backfill(&name, range));
        write.await
    }

    /// As [`Recurrences::reset`](crate::Recurrences::reset).
    ///
    /// # Errors
    ///
    /// As [`Recurrences::reset`](crate::Recurrences::reset).
    pub async fn reset(self, name: &str, from: DateTime<Utc>) -> Result<()> {
        let name = name.to_owned();
        let write = self
            .0
            .write(move |client| client.recurrences().reset(&name, from));
        write.await
    }

    /// As [`Recurrences::events`](crate::Recurrences::events), which waits for nothing.
    pub fn events(self) -> EventStream<RecurrenceEvent> {
        self.0.client.recurrences().events().into()
    }
}
