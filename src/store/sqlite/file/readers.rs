//! Read connections: a small pool of connections that cannot write, and so never wait for the writer.

use std::sync::Mutex;

use rusqlite::Connection;

use crate::error::Result;
use crate::store::sqlite::error;
use crate::store::sqlite::file::open::Opener;
use crate::store::sqlite::file::schema;
use crate::sync::lock;

/// How many idle connections are kept.
const MAX_IDLE: usize = 4;

/// Connections that cannot write, opened when all others are in use.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    opener: Opener,
}

impl Readers {
    pub(crate) fn new(opener: Opener) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            opener,
        }
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let idle = lock(&self.idle).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.opener.reader()?,
        };
        let answer = read(&conn);
        let poisoned = answer.as_ref().is_err_and(error::poisons);
        let answer = answer.map_err(|error| schema::diagnose(&conn, "cannot read", error));
        if poisoned {
            drop(conn);
        } else {
            let mut idle = lock(&self.idle);
            if idle.len() < MAX_IDLE {
                idle.push(conn);
            }
        }
        answer
    }
}
