//! Stored definitions that were decoded before: those of recurrences that fire often, or that differ from others in their
//! names and payloads only. What is kept depends on the stored text alone, so it is never out of date.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::definition::Definition;
use crate::sync::lock;

/// How many are kept. Decoding one is a tenth of the work of making a task.
const MAX_KNOWN: usize = 1_024;
/// The longest stored definition that is kept, in bytes: most have a few hundred.
const MAX_KNOWN_BYTES: usize = 2_048;

impl Definition {
    /// Decodes a stored definition as [`decode`](Self::decode) does, unless the same is known.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub(crate) fn known(stored: &[u8]) -> Result<Arc<Self>, String> {
        static KNOWN: Mutex<Option<HashMap<Vec<u8>, Arc<Definition>>>> = Mutex::new(None);
        if let Some(definition) = lock(&KNOWN).get_or_insert_default().get(stored) {
            return Ok(Arc::clone(definition));
        }
        let definition = Arc::new(Self::decode(stored)?);
        if stored.len() <= MAX_KNOWN_BYTES {
            let mut known = lock(&KNOWN);
            let known = known.get_or_insert_default();
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(stored.to_owned(), Arc::clone(&definition));
        }
        Ok(definition)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::new_task::NewTask;
    use crate::model::recurrence::request::Recurrence;
    use crate::time::Timestamp;

    fn stored(seconds: u64) -> Vec<u8> {
        let task = NewTask::with_kind("kind", &());
        let every = Recurrence::new("a", task).every(Duration::from_secs(seconds));
        let prepared = every.unwrap().prepare(Timestamp::from_micros(0));
        prepared.unwrap().definition.encode()
    }

    #[test]
    fn a_known_definition_is_that_of_its_text_however_many_there_are() {
        for _ in 0..2 {
            for seconds in 1..2_000 {
                let text = stored(seconds);
                let known = Definition::known(&text).unwrap();
                assert_eq!(known.encode(), text);
            }
        }
        let text = stored(1);
        let long = [text.clone(), vec![b' '; MAX_KNOWN_BYTES]].concat();
        for _ in 0..2 {
            assert_eq!(Definition::known(&long).unwrap().encode(), text);
        }
        assert!(Definition::known(&text[1..]).is_err());
    }
}
