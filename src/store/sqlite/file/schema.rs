//! The schema: created in an empty file, migrated in an older one, refused in a newer one, whose version the error names.
//!
//! The crate is a guest in the user's file: all its names begin with `punctual_`, and it touches neither `application_id`
//! nor `user_version`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::error;
use crate::store::sqlite::sql::sql;

/// Each step from one version to the next, never edited once released.
const MIGRATIONS: [&str; 2] = [
    sql!(include_str!("migrations/0001.sql")),
    sql!(include_str!("migrations/0002.sql")),
];

pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

const HAS_META: &str =
    "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'punctual_meta'";

const READ_VERSION: &str = "SELECT value FROM punctual_meta WHERE key = 'schema_version'";

const WRITE_VERSION: &str = "
    INSERT INTO punctual_meta (key, value) VALUES ('schema_version', :version)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// The schema version of the file; 0 if it has none of our tables.
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

/// Brings the file to [`VERSION`] in one transaction; a crash in between leaves the old one.
///
/// # Errors
///
/// `Version` if the file is newer, `Corrupt` if it is no database.
pub(crate) fn migrate(conn: &Connection) -> Result<()> {
    let context = "cannot read the schema";
    let found = version(conn).map_err(|error| error::of(context, error))?;
    if found == VERSION {
        return verify(conn);
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
                // The first error is the one that counts.
                let _ = conn.execute_batch("ROLLBACK");
            }
            Err(error::of("cannot create the tables", error))
        }
    }
}

/// Our tables and indexes: the SQL that made each, by name.
type Objects = BTreeMap<String, String>;

const OBJECTS: &str = "
    SELECT name, sql FROM sqlite_schema
    WHERE name LIKE 'punctual^_%' ESCAPE '^' AND type IN ('table', 'index') AND sql IS NOT NULL";

fn objects(conn: &Connection) -> rusqlite::Result<Objects> {
    conn.prepare(OBJECTS)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The objects of a file of [`VERSION`].
fn expected() -> rusqlite::Result<&'static Objects> {
    static EXPECTED: OnceLock<Objects> = OnceLock::new();
    if let Some(expected) = EXPECTED.get() {
        return Ok(expected);
    }
    let conn = Connection::open_in_memory()?;
    for step in MIGRATIONS {
        conn.execute_batch(step)?;
    }
    let expected = objects(&conn)?;
    Ok(EXPECTED.get_or_init(|| expected))
}

/// Checks that the file has the tables and indexes of this version. What the user adds, also to our tables, is ignored.
///
/// # Errors
///
/// `Version` if the file was migrated by a newer version, `Corrupt` if something is missing or was altered.
pub(crate) fn verify(conn: &Connection) -> Result<()> {
    let failed = |error| error::of("cannot read the schema", error);
    let found = objects(conn).map_err(failed)?;
    if found.contains_key("punctual_meta") {
        refuse_newer(version(conn).map_err(failed)?)?;
    }
    for (name, sql) in expected().map_err(failed)? {
        let how = match found.get(name) {
            Some(found) if found == sql => continue,
            Some(_) => "was altered",
            None => "is missing",
        };
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{name} {how} in the file: this version of punctual cannot work with it"),
        ));
    }
    Ok(())
}

const RESERVED: &str = "
    SELECT 'temp.' || name FROM sqlite_temp_schema WHERE name LIKE 'punctual^_%' ESCAPE '^'
    UNION ALL SELECT name FROM sqlite_schema WHERE name LIKE 'punctual^_%' ESCAPE '^'";

/// The names that begin like ours, but are none of our tables and indexes.
pub(crate) fn reserved(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let found: Vec<String> = conn
        .prepare(RESERVED)?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let expected = expected()?;
    let is_none = |name: &String| !expected.contains_key(name);
    Ok(found.into_iter().filter(is_none).collect())
}

/// Checks the version alone, in a file that has our tables.
///
/// # Errors
///
/// `Version` if the file was migrated by a newer version.
pub(crate) fn check_version(conn: &Connection) -> Result<()> {
    let found = conn
        .prepare_cached(READ_VERSION)
        .and_then(|mut version| version.query_row([], |row| row.get(0)))
        .map_err(|error| diagnose(conn, "cannot read the schema", error))?;
    refuse_newer(found)
}

/// The error of one of our statements. If the statement does not fit the file, the error names what is wrong with the
/// schema.
pub(crate) fn diagnose(conn: &Connection, context: &str, error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::Unknown)
        && let Err(found) = verify(conn)
    {
        return found.in_context(context);
    }
    error::of(context, error)
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
    use crate::store::sqlite::file::open;

    #[test]
    fn the_schema_is_made_once() {
        let conn = open::memory().unwrap();
        migrate(&conn).unwrap();
        assert_eq!(version(&conn).unwrap(), VERSION);
        migrate(&conn).unwrap();
    }

    #[test]
    fn a_file_of_each_older_version_is_migrated_and_keeps_what_it_holds() {
        for older in 1..MIGRATIONS.len() {
            let conn = open::memory().unwrap();
            for step in &MIGRATIONS[..older] {
                conn.execute_batch(step).unwrap();
            }
            conn.execute(WRITE_VERSION, [older as i64]).unwrap();
            let sql = "INSERT INTO punctual_queue (name, paused_at) VALUES ('mail', 7)";
            conn.execute(sql, []).unwrap();
            migrate(&conn).unwrap();
            verify(&conn).unwrap();
            assert_eq!(version(&conn).unwrap(), VERSION, "from {older}");
            let sql = "SELECT paused_at FROM punctual_queue WHERE name = 'mail'";
            let paused_at: i64 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
            assert_eq!(paused_at, 7);
        }
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
    fn tables_that_are_missing_or_altered_are_named() {
        let harms = [
            ("DROP TABLE punctual_tag", "punctual_tag is missing"),
            (
                "DROP INDEX punctual_task_due",
                "punctual_task_due is missing",
            ),
            ("DROP TABLE punctual_meta", "punctual_meta is missing"),
            (
                "ALTER TABLE punctual_task ADD COLUMN x INTEGER",
                "punctual_task was altered",
            ),
            (
                "ALTER TABLE punctual_result RENAME COLUMN result TO value",
                "punctual_result was altered",
            ),
        ];
        for (harm, said) in harms {
            let conn = open::memory().unwrap();
            migrate(&conn).unwrap();
            conn.execute_batch(harm).unwrap();
            let error = verify(&conn).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{harm}");
            assert!(error.to_string().contains(said), "{harm}: {error}");
        }
        let conn = open::memory().unwrap();
        migrate(&conn).unwrap();
        conn.execute_batch(
            "CREATE INDEX mine ON punctual_task (partition);
            CREATE TRIGGER also_mine AFTER INSERT ON punctual_task BEGIN SELECT 1; END",
        )
        .unwrap();
        verify(&conn).unwrap();
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
