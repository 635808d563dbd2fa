//! What is refused inside a transaction: SQL that would end it, or write to tables that are not the caller's.

use punctual::rusqlite::{self, Connection};
use punctual::{Client, Error, ErrorKind, Filter};

use super::{rows, rows_in, with_table, write};
use crate::kit::{LONG, file, probe};

/// Whether the closure passes the refusal on or not: nothing of what it may not do is done.
#[test]
fn sql_that_would_end_the_transaction_or_write_to_our_tables_is_refused() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    client.schedule(probe(1)).unwrap();
    let refused = [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE a",
        "ROLLBACK TO a",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA synchronous = OFF",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint",
        "PRAGMA writable_schema = 1",
        "UPDATE punctual_task SET state = 20",
        "UPDATE Punctual_Task SET state = 20",
        "DELETE FROM punctual_task",
        "INSERT INTO punctual_meta VALUES ('a', 1)",
        "DROP TABLE punctual_task",
        "ALTER TABLE punctual_task ADD COLUMN x",
        "CREATE TABLE punctual_mine (x)",
        "CREATE TEMP TABLE punctual_task AS SELECT * FROM main.punctual_task",
        "CREATE TEMP VIEW punctual_task AS SELECT 1",
        "CREATE VIEW punctual_mine AS SELECT 1",
        "CREATE VIRTUAL TABLE punctual_mine USING fts5 (x)",
        "PRAGMA page_size = 512",
        "CREATE INDEX mine ON punctual_task (state)",
        "DROP INDEX punctual_task_due",
        "CREATE TRIGGER mine AFTER INSERT ON punctual_task BEGIN SELECT 1; END",
        "CREATE TRIGGER mine AFTER INSERT ON own BEGIN DELETE FROM punctual_task; END; INSERT INTO own (x) VALUES (77)",
    ];
    for sql in refused {
        let error = client
            .transaction(|tx| {
                write(tx, 1)?;
                tx.sqlite()?.execute_batch(sql)?;
                Ok::<_, Error>(())
            })
            .expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        assert_eq!(rows(&client), 0, "{sql}");
    }
    for sql in ["COMMIT", "ROLLBACK", "BEGIN", "DELETE FROM punctual_task"] {
        let kept = client.transaction(|tx| {
            let before = rows_in(tx)?;
            assert!(tx.sqlite()?.execute_batch(sql).is_err());
            write(tx, before + 1)?;
            Ok::<_, Error>(before)
        });
        assert_eq!(kept.unwrap() + 1, rows(&client), "{sql} was not done");
    }
    let allowed = [
        "SELECT count(*) FROM punctual_task",
        "PRAGMA table_info(own)",
        "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n LIMIT 9) SELECT sum(x) FROM n",
    ];
    client
        .transaction(|tx| {
            for sql in allowed {
                let mut statement = tx.sqlite()?.prepare(sql)?;
                assert!(statement.exists([])?, "{sql}");
            }
            tx.sqlite()?.execute_batch(
                "CREATE VIRTUAL TABLE text USING fts5 (body); INSERT INTO text VALUES ('a b');
                CREATE TEMP TABLE t (x); CREATE INDEX own_y ON own (y); DROP TABLE text",
            )?;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(client.count(&Filter::all()).unwrap(), 1);
    assert!(
        client.health().last_error().is_none(),
        "{:?}",
        client.health()
    );
}

/// SQLite ends the transaction by itself there: whatever comes after that would be one of its own.
#[test]
fn p6_a_transaction_that_sql_has_rolled_back_commits_nothing_of_what_comes_after() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    client.transaction(|tx| write(tx, 1).map(|_| ())).unwrap();
    let error = client
        .transaction(|tx| {
            write(tx, 2)?;
            tx.schedule(probe(1))?;
            let twice = tx
                .sqlite()?
                .execute("INSERT OR ROLLBACK INTO own (x) VALUES (1)", []);
            assert!(twice.is_err());
            assert!(write(tx, 3).is_err(), "it would commit alone");
            assert!(tx.schedule(probe(2)).is_err());
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("ROLLBACK"), "{error}");
    assert_eq!(rows(&client), 1);
    assert_eq!(client.count(&Filter::all()).unwrap(), 0);
    client.schedule(probe(3)).unwrap();
}

/// The crate's own statements are kept on the same connection by their text, and were permitted when they were made.
#[test]
fn p6_statements_that_are_kept_are_refused_too() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let _ = client.transaction(|_| Err::<(), _>(Error::from(rusqlite::Error::InvalidQuery)));
    let kept = [
        "ROLLBACK",
        "COMMIT",
        "BEGIN IMMEDIATE",
        "PRAGMA synchronous = NORMAL",
    ];
    client
        .transaction(|tx| {
            write(tx, 1)?;
            tx.schedule(probe(1).queue("new"))?;
            for sql in kept {
                let prepared = tx.sqlite()?.prepare_cached(sql);
                assert!(prepared.and_then(|mut it| it.execute([])).is_err(), "{sql}");
            }
            tx.schedule(probe(2).queue("new"))?;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(rows(&client), 1);
    assert_eq!(client.count(&Filter::all()).unwrap(), 2);
}

#[test]
fn a_table_cannot_be_given_one_of_our_names() {
    let (_dir, path) = file();
    let client = Client::open(&path).unwrap();
    with_table(&client);
    let refused = [
        "CREATE TEMP TABLE t (id, state); ALTER TABLE t RENAME TO punctual_task",
        "CREATE TEMP TABLE t (id, state); ALTER TABLE t RENAME TO Punctual_Task",
        "ALTER TABLE other RENAME TO punctual_other",
    ];
    for sql in refused {
        let error = client
            .transaction(|tx| tx.sqlite()?.execute_batch(sql).map_err(Error::from))
            .expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        assert!(error.to_string().contains("names that begin"), "{error}");
        client.schedule(probe(1).after(LONG)).unwrap();
    }
    assert_eq!(client.count(&Filter::all()).unwrap(), 3);
    // A statement that is kept is not looked at when it is run.
    let kept = "ALTER TABLE other RENAME TO punctual_other";
    client
        .transaction(|tx| {
            tx.sqlite()?
                .prepare_cached(kept)
                .map(drop)
                .map_err(Error::from)
        })
        .unwrap();
    let error = client
        .transaction(|tx| Ok::<_, Error>(tx.sqlite()?.prepare_cached(kept)?.execute([])?))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    drop(client);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE punctual_notes (x)")
        .unwrap();
    drop(conn);
    let client = Client::open(&path).unwrap();
    // As SQLite's manual has it done. What had such a name before is no concern.
    let made_anew = "CREATE TABLE new (x, z); INSERT INTO new SELECT x, 1 FROM other;
        DROP TABLE other; ALTER TABLE new RENAME TO other";
    client
        .transaction(|tx| tx.sqlite()?.execute_batch(made_anew).map_err(Error::from))
        .unwrap();
}
