//! What both kinds of context tell of an attempt.

/// The accessors of a context with a field `holding: Arc<Holding>`.
macro_rules! about_attempt {
    () => {
        /// The task's id: the same in every attempt, so it can serve as an idempotency key.
        #[must_use]
        pub fn id(&self) -> crate::id::TaskId {
            self.holding.claim.id
        }

        /// The task's kind.
        #[must_use]
        pub fn kind(&self) -> &str {
            &self.holding.claim.kind
        }

        /// The queue that the task was in.
        #[must_use]
        pub fn queue(&self) -> &str {
            &self.holding.claim.queue
        }

        /// Which start of the task this is, from 1. A snoozed or interrupted start is not counted, a crashed one is: after a crash
        /// the number may exceed [`max_attempts`](Self::max_attempts). The last attempt is the one whose number less
        /// [`crashes`](Self::crashes) is `max_attempts`.
        #[must_use]
        pub fn attempt(&self) -> u32 {
            self.holding.claim.attempt
        }

        /// How many earlier attempts ended with their process. They cost the task none of its attempts.
        #[must_use]
        pub fn crashes(&self) -> u32 {
            self.holding.claim.crashes
        }

        /// How many attempts the task has; crashed ones are not counted.
        #[must_use]
        pub fn max_attempts(&self) -> u32 {
            self.holding.claim.max_attempts
        }

        /// When the task was due.
        #[must_use]
        pub fn scheduled_at(&self) -> chrono::DateTime<chrono::Utc> {
            self.holding.claim.scheduled_at.to_utc()
        }

        /// When the attempt should have ended; `None`: no limit.
        #[must_use]
        pub fn deadline(&self) -> Option<chrono::DateTime<chrono::Utc>> {
            self.holding.deadline.map(crate::time::Timestamp::to_utc)
        }

        /// The task's metadata.
        ///
        /// # Example
        ///
        /// ```
        /// use punctual::{Outcome, TaskContext, TaskResult};
        ///
        /// fn remind(cx: &TaskContext) -> TaskResult {
        ///     let request = cx.metadata().get("request").map_or("unknown", String::as_str);
        ///     println!("reminding, for request {request}");
        ///     Ok(Outcome::done())
        /// }
        /// ```
        #[must_use]
        pub fn metadata(&self) -> &std::collections::BTreeMap<String, String> {
            let options = self.holding.claim.options.as_deref();
            options.map_or(&crate::handler::holding::NO_METADATA, |options| {
                &options.metadata
            })
        }

        /// The name of the recurrence that made the task; `None`: it was scheduled by a caller.
        #[must_use]
        pub fn recurrence(&self) -> Option<&str> {
            self.holding.slot_of().map(|slot| slot.recurrence.as_str())
        }

        /// The slot of the recurrence that the task was made for: its nominal instant, whatever the jitter and however late it is.
        /// `None`: the task has none, or was [triggered](crate::Recurrences::trigger).
        ///
        /// # Example
        ///
        /// A report of the time since the last one:
        ///
        /// ```
        /// use punctual::{Outcome, TaskContext, TaskResult};
        ///
        /// fn report(cx: &TaskContext) -> TaskResult {
        ///     let slot = cx.slot().ok_or("it is made by a recurrence")?;
        ///     println!("from {:?} to {slot}", cx.previous_slot());
        ///     Ok(Outcome::done())
        /// }
        /// ```
        #[must_use]
        pub fn slot(&self) -> Option<chrono::DateTime<chrono::Utc>> {
            let slot = self.holding.slot_of().and_then(|slot| slot.at);
            slot.map(crate::time::Timestamp::to_utc)
        }

        /// The slot of the task that the recurrence made before this one. In a task of a [backfill](crate::Recurrences::backfill):
        /// the slot before, by the rule, whether it made a task or not.
        #[must_use]
        pub fn previous_slot(&self) -> Option<chrono::DateTime<chrono::Utc>> {
            let previous = self.holding.slot_of().and_then(|slot| slot.previous);
            previous.map(crate::time::Timestamp::to_utc)
        }

        /// The text of the newest error of an earlier attempt, if there is one.
        #[must_use]
        pub fn last_error(&self) -> Option<&str> {
            self.holding.claim.last_error.as_deref()
        }

        /// Whether the handler should stop soon.
        #[must_use]
        pub fn cancelled(&self) -> bool {
            self.holding.token.reason().is_some()
        }

        /// Why the handler should stop; `None`: it need not.
        #[must_use]
        pub fn stop_reason(&self) -> Option<crate::handler::token::StopReason> {
            self.holding.token.reason()
        }
    };
}
pub(crate) use about_attempt;
