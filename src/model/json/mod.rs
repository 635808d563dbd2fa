//! Payloads, results and progress as JSON.
//!
//! Invariant: what [`encode`](encode()) accepts is JSON that can be parsed again, with every number exact. Anything else is an
//! error at the call. Whether the type can decode its own JSON is checked only by [`verified`].

mod decode;
mod encode;
mod place;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::model::limits::check_size;

/// How deep arrays and objects may be nested. `serde_json` reads no deeper.
pub(crate) const MAX_NESTING: usize = 127;

/// Encodes a value. `what` names the value in an error: `payload`, `result`.
///
/// # Errors
///
/// `Payload` if `value` cannot be encoded, has a number that JSON cannot express (NaN, an infinity), is nested deeper than
/// [`MAX_NESTING`], or is too large.
pub(crate) fn encode<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Vec<u8>> {
    let bytes = encode::to_vec(value).map_err(|failed| {
        let at = failed.place.map(|place| format!(" at `{place}`"));
        Error::new(
            ErrorKind::Payload,
            format!("cannot encode the {what}{}", at.unwrap_or_default()),
        )
        .with_source(failed.error)
    })?;
    check_size(what, &bytes)?;
    Ok(bytes)
}

/// Decodes a value.
///
/// # Errors
///
/// `Payload` if `bytes` are not a `T`. The text names the place and what is wrong there, never a value: it shows the names of
/// fields, but no keys of maps.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Payload,
            format!(
                "cannot decode the {what} as {}{}",
                std::any::type_name::<T>(),
                decode::explain::<T>(bytes, &error)
            ),
        )
    })
}

/// Decodes a payload that was just encoded, to check that this is possible, and returns its JSON.
///
/// # Errors
///
/// `Payload` if it is not possible: no handler would ever get the payload.
pub(crate) fn verified<T: DeserializeOwned>(bytes: Vec<u8>) -> Result<Vec<u8>> {
    match decode::<T>("payload", &bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.in_context("the payload was encoded but does not come back")),
    }
}

#[cfg(test)]
mod tests;
