//! The parts of a scheduler, stepped by threads or by a test.

use std::sync::Arc;

use crate::client::Client;
use crate::model::health::Health;
use crate::model::retention::Retention;
use crate::runtime::dispatcher::Dispatcher;
use crate::runtime::executor::Executor;
use crate::runtime::flight::Launcher;
use crate::runtime::link::Link;
use crate::runtime::maintenance::{
    Ahead, Deadlines, Firer, Forgetter, Maintenance, Prober, Pruner, Rescuer, Retirer,
};
use crate::runtime::plan::Scope;
use crate::runtime::ready::Ready;
use crate::runtime::shutdown::ShutdownState;
use crate::sync::lock;
use crate::time::Timestamp;
use crate::wake::Wake;

/// The parts of a scheduler, stepped by threads or by a test.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) link: Arc<Link>,
    pub(super) scope: Scope,
    pub(super) retention: Retention,
    pub(super) workers: usize,
    pub(super) max_threads: usize,
    pub(super) max_in_flight: usize,
    pub(super) ready: Arc<Ready>,
    pub(super) launcher: Arc<Launcher>,
    pub(super) shutdown: Arc<ShutdownState>,
    /// Recurrences of which slots are decided that are still to come.
    pub(super) ahead: Ahead,
    pub(super) dispatcher_wake: Wake,
    pub(super) maintenance_wake: Wake,
}

impl Parts {
    pub(crate) fn executor(&self) -> Executor {
        Executor {
            registry: Arc::clone(&self.link.registry),
            ready: Arc::clone(&self.ready),
        }
    }

    pub(crate) fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(
            Arc::clone(&self.link),
            Arc::clone(&self.ready),
            Arc::clone(&self.launcher),
            Arc::clone(&self.shutdown),
            self.scope.clone(),
            self.retention,
        )
    }

    /// `executor`: for spare threads to work with; `None` if there are no threads.
    pub(crate) fn maintenance(&self, executor: Option<Executor>) -> Maintenance {
        Maintenance::new(
            vec![
                // First: nothing else here has a time to keep.
                Box::new(Firer::new(self.client.clone(), Ahead::clone(&self.ahead))),
                Box::new(Rescuer::new(self.client.clone())),
                Box::new(Deadlines {
                    link: Arc::clone(&self.link),
                    ready: Arc::clone(&self.ready),
                    executor,
                    dispatcher: self.dispatcher_wake.clone(),
                    runs_futures: self.launcher.is_workers(),
                    max_threads: self.max_threads,
                }),
                Box::new(Pruner::new(self.client.clone(), self.retention)),
                Box::new(Prober::new(self.client.clone())),
                Box::new(Retirer::new(self.client.clone())),
                Box::new(Forgetter::new(self.client.clone())),
            ],
            Arc::clone(&self.shutdown),
        )
    }

    pub(crate) fn health(&self) -> Health {
        if self.client.store.check().is_err() {
            // In a forked child a lock may be held by a thread that does not exist there.
            return self.client.health();
        }
        let now = self.client.now();
        let (mut unknown, mut suspect) = (Vec::new(), Vec::new());
        for lane in self.client.store.lanes().list.iter() {
            let known = self.link.registry.get(&lane.kind).is_some();
            let next_at = lane.next_at();
            if !known && next_at.is_some() {
                add_kind(&mut unknown, &lane.kind);
            }
            if lane.class.level().is_some() && next_at.is_some_and(|at| at <= now) {
                add_kind(&mut suspect, &lane.kind);
            }
        }
        let quiet_until = self.link.attempts.held(now).suspects.quiet_until;
        let undecodable = self.link.undecodable.kinds(now);
        let (started, stuck) = (self.link.attempts.started(), self.link.attempts.stuck());
        let (blocking_kinds, unpolled) = self.link.attempts.unpolled();
        let stuck_on_workers = match self.launcher.is_workers() {
            true => stuck.total(),
            false => stuck.threads,
        };
        Health {
            workers: self.workers,
            busy: started.threads,
            stuck: stuck_on_workers,
            in_flight: started.futures,
            max_in_flight: self.max_in_flight,
            stuck_futures: stuck.futures,
            slow_polls: self.link.polls.slow(),
            blocking_kinds,
            unpolled,
            futures_rest_until: self.link.places.rests(now).map(Timestamp::to_utc),
            spare: self.ready.spares(),
            unknown_kinds: unknown,
            suspect_kinds: suspect,
            quiet_until: quiet_until.map(Timestamp::to_utc),
            decided_ahead: lock(&self.ahead).clone(),
            undecodable_kinds: undecodable.iter().map(ToString::to_string).collect(),
            ..self.client.health()
        }
    }

    /// Whether an executor of the program's has to poll futures.
    pub(crate) fn waits_for_executor(&self) -> bool {
        !self.launcher.is_workers()
            && self.client.store.check().is_ok()
            && self.link.registry.longest_grace().is_some()
    }

    /// Stops all claims; waiting tasks that were claimed are given back.
    pub(crate) fn stop(&self) {
        self.shutdown.begin();
        self.dispatcher_wake.notify();
        self.maintenance_wake.notify();
    }
}

fn add_kind(kinds: &mut Vec<String>, kind: &str) {
    if !kinds.iter().any(|known| known == kind) {
        kinds.push(kind.to_owned());
    }
}
