//! What a task carries: a type of the user's with a stable name.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::model::delivery::Delivery;
use crate::model::limits::check_size;

/// The argument of a task, and the name under which its handler is found.
///
/// Kept as JSON, at most [`MAX_PAYLOAD_BYTES`](crate::MAX_PAYLOAD_BYTES). A program that only schedules needs the
/// payload type and no handler.
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
    /// Names the handler, across releases: tasks that are already stored carry it. 1 to 128 bytes of letters, digits
    /// and `_ . : / @ -`.
    const KIND: &'static str;

    /// Whether a task of this kind may be started again after an attempt that did not complete it, unless
    /// [`NewTask::delivery`](crate::NewTask::delivery) says otherwise for one. It is kept with each task when it is scheduled by
    /// [`NewTask::new`](crate::NewTask::new); [`NewTask::with_kind`](crate::NewTask::with_kind) does not know it.
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
}

/// # Errors
///
/// `Payload` if `value` cannot be encoded or is too large.
pub(crate) fn encode<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        Error::new(ErrorKind::Payload, format!("cannot encode the {what}")).with_source(error)
    })?;
    check_size(what, &bytes)?;
    Ok(bytes)
}

/// # Errors
///
/// `Payload` if `bytes` are not a `T`. The error says where, never what was there.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        // serde's own message can quote the value; the position cannot.
        Error::new(
            ErrorKind::Payload,
            format!(
                "cannot decode the {what} as {}: {:?} error at line {} column {}",
                std::any::type_name::<T>(),
                error.classify(),
                error.line(),
                error.column()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::MAX_PAYLOAD_BYTES;

    #[test]
    fn a_payload_over_the_limit_is_refused() {
        let fits = "x".repeat(MAX_PAYLOAD_BYTES - 2);
        assert_eq!(encode("payload", &fits).unwrap().len(), MAX_PAYLOAD_BYTES);
        let too_large = "x".repeat(MAX_PAYLOAD_BYTES - 1);
        let error = encode("payload", &too_large).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Payload);
    }

    #[test]
    fn a_decoding_error_does_not_quote_the_payload() {
        let error = decode::<u8>("payload", b"\"secret\"").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("column"), "{error}");
    }

    #[test]
    fn json_nested_without_end_is_an_error_not_a_stack_overflow() {
        let deep = "[".repeat(500_000);
        assert!(decode::<serde_json::Value>("payload", deep.as_bytes()).is_err());
    }
}
