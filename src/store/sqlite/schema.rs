//! The schema: made in an empty file, brought up to date in an older one, refused by name in a newer one.
//!
//! A guest in the user's file: everything is named `punctual_…`, and neither `application_id` nor `user_version` is
//! touched.

use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::fault;

/// Each step from one version to the next, never edited once released.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];

pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

const HAS_META: &str =
    "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'punctual_meta'";

const READ_VERSION: &str = "SELECT value FROM punctual_meta WHERE key = 'schema_version'";

const WRITE_VERSION: &str = "
    INSERT INTO punctual_meta (key, value) VALUES ('schema_version', :version)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// The version in the file; 0 if we have never been there.
fn version(conn: &Connection) -> rusqlite::Result<i64> {
    if conn
        .query_row(HAS_META, [], |_| Ok(()))
        .optional()?
        .is_none()
    {
        return Ok(0);
    }
    Ok(conn
        .query_row(READ_VERSION, [], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

/// Brings the file to [`VERSION`] in one transaction; whoever dies in between leaves the old one.
///
/// # Errors
///
/// `Version` if the file is newer, `Corrupt` if it is no database.
pub(super) fn migrate(conn: &Connection) -> Result<()> {
    let context = "cannot read the schema";
    let found = version(conn).map_err(|error| fault::of(context, error))?;
    if found == VERSION {
        return Ok(());
    }
    refuse_newer(found)?;
    let migrated = || -> rusqlite::Result<i64> {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        // Another process may have been faster.
        let found = version(conn)?;
        for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
            conn.execute_batch(step)?;
        }
        if found < VERSION {
            conn.execute(WRITE_VERSION, [VERSION])?;
        }
        conn.execute_batch("COMMIT")?;
        Ok(found)
    };
    match migrated() {
        Ok(found) => refuse_newer(found),
        Err(error) => {
            if !conn.is_autocommit() {
                // The error that counts is the first.
                let _ = conn.execute_batch("ROLLBACK");
            }
            Err(fault::of("cannot create the tables", error))
        }
    }
}

fn refuse_newer(found: i64) -> Result<()> {
    if found <= VERSION {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Version,
        format!("the file has schema {found}; this version of punctual knows {VERSION} and older"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::open;

    #[test]
    fn the_schema_is_made_once() {
        let conn = open::memory().unwrap();
        migrate(&conn).unwrap();
        assert_eq!(version(&conn).unwrap(), VERSION);
        migrate(&conn).unwrap();
    }

    #[test]
    fn a_newer_schema_is_refused_by_name_and_left_alone() {
        let conn = open::memory().unwrap();
        migrate(&conn).unwrap();
        conn.execute(WRITE_VERSION, [VERSION + 1]).unwrap();
        let error = migrate(&conn).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Version);
        assert!(
            error
                .to_string()
                .contains(&format!("schema {}", VERSION + 1))
        );
        assert_eq!(version(&conn).unwrap(), VERSION + 1);
    }

    #[test]
    fn the_user_s_tables_and_numbers_are_left_alone() {
        let conn = open::memory().unwrap();
        conn.execute_batch(
            "PRAGMA user_version = 7; PRAGMA application_id = 9; CREATE TABLE task (x); INSERT INTO task VALUES (1)",
        )
        .unwrap();
        migrate(&conn).unwrap();
        let number = |name: &str| -> i64 {
            conn.pragma_query_value(None, name, |row| row.get(0))
                .unwrap()
        };
        assert_eq!((number("user_version"), number("application_id")), (7, 9));
        let foreign: i64 = conn
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'punctual_%' AND name NOT LIKE 'sqlite_%'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(foreign, 1);
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing() {
        let conn = open::memory().unwrap();
        conn.execute_batch("CREATE TABLE punctual_tag (x)").unwrap();
        assert!(migrate(&conn).is_err());
        assert!(conn.is_autocommit());
        assert_eq!(version(&conn).unwrap(), 0);
    }
}
