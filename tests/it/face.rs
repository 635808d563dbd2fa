//! What the types promise by being what they are.

use punctual::{
    Client, Error, Events, Failure, Outcome, Receipt, Scheduled, Scheduler, Task, TaskContext,
};

#[test]
fn what_is_shared_between_threads_can_be() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Scheduler>();
    shared::<Client>();
    shared::<Error>();
    shared::<Task>();
    shared::<TaskContext>();
    shared::<Events>();
    sent::<Outcome>();
    sent::<Failure>();
    sent::<Receipt<Scheduled>>();
}
