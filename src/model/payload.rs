//! A task's argument: a type of the user's with a stable name.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::delivery::Delivery;

/// The argument of a task, and the name of its handler.
///
/// Kept as JSON, at most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES). Numbers are kept exactly. A program that only
/// schedules needs the payload type and no handler.
///
/// # What is refused
///
/// A payload that no handler could decode is refused when it is scheduled, as [`ErrorKind::Payload`](crate::ErrorKind::Payload)
/// with the place inside the payload:
///
/// - always, values that JSON cannot express: NaN and infinities, also inside an `Option`; maps with
///   keys of several values, such as a tuple or a struct; arrays and objects nested deeper than 127;
/// - if [`VERIFY`](Self::VERIFY) is set, everything that the type encodes but does not decode: a field with
///   `skip_serializing` and no default, a number over 64 bits in a flattened struct or an untagged enum.
///
/// If any crate of the program turns on `serde_json`'s feature `arbitrary_precision`, some numbers in flattened structs and
/// untagged enums can no longer be decoded. `VERIFY` is then worth its cost in release builds too.
///
/// # Changing a payload
///
/// Stored tasks keep the JSON that they were scheduled with. While a new version of a program is rolled out, processes of both
/// versions run tasks of one file. So:
///
/// 1. Give a new field a default (`#[serde(default)]`), and keep reading a field or variant that is no longer written. Then
///    each version reads what the other writes, and nothing else is needed.
/// 2. Otherwise deploy in two steps: first, to all processes, a version that reads both forms and writes the old one; then one
///    that writes the new form.
/// 3. Or give the new form a new `KIND` with a handler of its own. A process without that handler leaves such tasks alone.
///
/// A process that cannot decode a payload does not call the handler, so this is no attempt, also for a task that is delivered
/// at most once. The task is due again after 1 s, and after further failures after 10 s, 1 min, 10 min and 1 h. Until the
/// process has decoded another payload of the kind, it leaves tasks of the kind to other processes, if there are any, until
/// they are 50 ms late. A start deadline holds meanwhile. After the last try the task fails with the decoding error, which
/// names the place in the payload and no value.
/// [`Health::undecodable_kinds`](crate::Health::undecodable_kinds) names the kind from the first try on. Waiting tasks can be
/// repaired by [`Client::edit`](crate::Client::edit).
///
/// # Example
///
/// ```
/// use punctual::Payload;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Remind { user: u64, text: String }
///
/// impl Payload for Remind {
///     const KIND: &'static str = "remind";
/// }
/// ```
pub trait Payload: Serialize + DeserializeOwned + 'static {
    /// Names the handler, across releases: stored tasks carry this name. 1 to [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES) bytes
    /// of printable characters, as defined there.
    const KIND: &'static str;

    /// Whether a task of this kind may be started again after an attempt that did not complete it, unless
    /// [`NewTask::delivery`](crate::NewTask::delivery) says otherwise. It is stored with each task that is made by
    /// [`NewTask::new`](crate::NewTask::new); [`NewTask::with_kind`](crate::NewTask::with_kind) does not use it.
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    /// Whether scheduling a payload of this type decodes its JSON once, and refuses a payload that cannot be decoded.
    ///
    /// This costs one decoding: for a struct of two fields about a microsecond. Default: in debug builds only, so that tests
    /// find a type that cannot decode its own JSON.
    const VERIFY: bool = cfg!(debug_assertions);
}
