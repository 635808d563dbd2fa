//! What the caller's own SQL may do inside a transaction on the write connection, and for how long.
//!
//! The hooks are installed once, with the connection: installing an authorizer expires all prepared statements. They
//! restrict nothing but the caller's own SQL, between its calls to the crate: it may neither end the transaction nor write
//! to our tables, and is interrupted if it runs too long.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::{Action, AuthAction, AuthContext, Authorization};

use crate::error::{Error, ErrorKind, Result};
use crate::id::TaskId;
use crate::log::log;
use crate::model::health::SlowTransaction;
use crate::process::Owner;
use crate::store::sqlite::error;
use crate::store::sqlite::file::schema;
use crate::sync::lock;
use crate::time::Stopwatch;

/// How many steps of SQLite's virtual machine there are between two looks at the time.
const LOOK_AFTER: c_int = 1_000;

/// Pragmas that only read if they are given no value; some virtual tables need them.
const PLAIN_PRAGMAS: [&str; 4] = ["data_version", "database_list", "page_count", "page_size"];

/// Pragmas that only read, even if they are given a value.
const TABLE_PRAGMAS: [&str; 7] = [
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Ends what [`Authorizer::watch_rows`] has begun.
pub(crate) fn stop_watching(conn: &mut Connection) {
    // Removing a hook can fail only for want of memory, and then it does no harm.
    let _ = conn.update_hook(None::<fn(Action, &str, &str, i64)>);
}

/// Watches over the caller's SQL.
#[derive(Debug)]
pub(crate) struct Authorizer {
    owner: Owner,
    /// How long a transaction of the caller's may take.
    timeout: Duration,
    /// Whether the code that runs now is the caller's own.
    is_theirs: AtomicBool,
    /// Whether a statement was prepared that alters a table, and may give it one of our names.
    has_altered: AtomicBool,
    /// Tables and indexes of the user's that already had a name `punctual_…` when the connection was opened.
    reserved: Mutex<Vec<String>>,
    /// The caller's transaction that is under way.
    under_way: Mutex<Option<UnderWay>>,
}

/// A caller's transaction.
#[derive(Debug)]
struct UnderWay {
    since: Stopwatch,
    thread: Thread,
    task: Option<TaskId>,
}

impl Authorizer {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            owner: Owner::this(),
            timeout,
            is_theirs: AtomicBool::new(false),
            has_altered: AtomicBool::new(false),
            reserved: Mutex::default(),
            under_way: Mutex::new(None),
        }
    }

    /// Installs the hooks: from now on they check everything that the connection does.
    pub(crate) fn install(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let authorizer = Arc::clone(self);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            authorizer.authorize(&context)
        }))?;
        let authorizer = Arc::clone(self);
        // Refuses a COMMIT from inside: what comes after it would commit alone. No rollback hook: a connection that is
        // dropped frees the hook before it rolls back.
        conn.commit_hook(Some(move || {
            authorizer.is_theirs() || !authorizer.owner.is_here()
        }))?;
        self.has_altered.store(false, Ordering::Relaxed);
        *lock(&self.reserved) = schema::reserved(conn)?;
        let authorizer = Arc::clone(self);
        conn.progress_handler(LOOK_AFTER, Some(move || authorizer.interrupts()))
    }

    /// Until [`stop_watching`], aborts a forked child that changes rows by a statement from before the fork. Such a
    /// statement is not refused as a new one is, and once the child's memory is full of changed pages they are written into
    /// the parent's log.
    pub(crate) fn watch_rows(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        let owner = self.owner;
        conn.update_hook(Some(move |_: Action, _: &str, _: &str, _: i64| {
            if !owner.is_here() {
                log!(error, "a forked child writes in its parent's transaction");
                std::process::abort();
            }
        }))
    }

    /// Begins the time of the caller's code. It ends when the returned value is dropped, even by a panic.
    pub(crate) fn enter(&self, task: Option<TaskId>) -> Entered<'_> {
        *lock(&self.under_way) = Some(UnderWay {
            since: Stopwatch::start(),
            thread: thread::current(),
            task,
        });
        self.is_theirs.store(true, Ordering::Relaxed);
        Entered(self)
    }

    /// Runs the crate's own code, inside a transaction of the caller's.
    pub(crate) fn as_ours<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Theirs<'a>(&'a Authorizer);
        impl Drop for Theirs<'_> {
            fn drop(&mut self) {
                self.0.is_theirs.store(true, Ordering::Relaxed);
            }
        }
        self.is_theirs.store(false, Ordering::Relaxed);
        let _theirs = Theirs(self);
        run()
    }

    /// Whether the transaction has taken too long.
    pub(crate) fn is_over(&self) -> bool {
        let is_slow = |under_way: &UnderWay| under_way.since.elapsed() > self.timeout;
        lock(&self.under_way).as_ref().is_some_and(is_slow)
    }

    /// Checks that the transaction can go on.
    ///
    /// # Errors
    ///
    /// `Forked` in a process that was forked inside it, `Timeout` if it has taken too long, `Invalid` if it is not open any
    /// more, although the crate has not ended it.
    pub(crate) fn check(&self, conn: &Connection) -> Result<()> {
        self.check_process()?;
        if self.is_over() {
            let timeout = self.timeout;
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("the transaction has taken over {timeout:?}"),
            ));
        }
        if conn.is_autocommit() {
            return Err(Error::invalid(
                "the transaction was rolled back inside, by ON CONFLICT ROLLBACK or RAISE(ROLLBACK), or by an error of the disk",
            ));
        }
        Ok(())
    }

    /// # Errors
    ///
    /// `Forked` in a process that was forked inside the transaction: that is its parent's.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.owner.check()
    }

    /// Checks that the transaction can be committed.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check); `Invalid` also if it has given a table one of our names.
    pub(crate) fn check_end(&self, conn: &Connection) -> Result<()> {
        self.check(conn)?;
        if !self.has_altered.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failed = |error| error::of("cannot read the schema", error);
        let reserved = schema::reserved(conn).map_err(failed)?;
        let before = lock(&self.reserved);
        match reserved.iter().find(|name| !before.contains(name)) {
            Some(name) => Err(Error::invalid(format!(
                "{name}: names that begin with punctual_ are the crate's"
            ))),
            None => Ok(()),
        }
    }

    /// The transaction that runs now, if it has taken too long.
    pub(crate) fn slow(&self) -> Option<SlowTransaction> {
        let under_way = lock(&self.under_way);
        let under_way = under_way.as_ref()?;
        let running_for = under_way.since.elapsed();
        (running_for > self.timeout).then(|| SlowTransaction {
            thread: under_way.thread.name().unwrap_or_default().to_owned(),
            task: under_way.task,
            running_for,
        })
    }

    fn is_theirs(&self) -> bool {
        self.is_theirs.load(Ordering::Relaxed)
    }

    /// Whether to interrupt the statement that runs.
    fn interrupts(&self) -> bool {
        self.is_theirs() && (self.is_over() || !self.owner.is_here())
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.is_theirs() {
            return Authorization::Allow;
        }
        if matches!(context.action, AuthAction::AlterTable { .. }) {
            // SQLite does not say what the new name is.
            self.has_altered.store(true, Ordering::Relaxed);
        }
        if is_allowed(&context.action) && self.owner.is_here() {
            Authorization::Allow
        } else {
            Authorization::Deny
        }
    }
}

/// Its drop ends the time of the caller's code.
pub(crate) struct Entered<'a>(&'a Authorizer);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.is_theirs.store(false, Ordering::Relaxed);
        *lock(&self.0.under_way) = None;
    }
}

/// Whether the caller's own SQL may do this.
fn is_allowed(action: &AuthAction<'_>) -> bool {
    use AuthAction as A;
    match action {
        A::Transaction { .. } | A::Savepoint { .. } | A::Attach { .. } | A::Detach { .. } => false,
        A::Pragma {
            pragma_name,
            pragma_value,
        } => {
            TABLE_PRAGMAS.contains(pragma_name)
                || pragma_value.is_none() && PLAIN_PRAGMAS.contains(pragma_name)
        }
        // Temporary tables and views, too: their names would hide ours for as long as the connection lives.
        A::Insert { table_name }
        | A::Update { table_name, .. }
        | A::Delete { table_name }
        | A::CreateTable { table_name }
        | A::CreateTempTable { table_name }
        | A::CreateVtable { table_name, .. }
        | A::DropTable { table_name }
        | A::DropTempTable { table_name }
        | A::DropVtable { table_name, .. }
        | A::AlterTable { table_name, .. }
        | A::CreateIndex { table_name, .. }
        | A::CreateTempIndex { table_name, .. }
        | A::DropIndex { table_name, .. }
        | A::CreateTrigger { table_name, .. }
        | A::CreateTempTrigger { table_name, .. }
        | A::DropTrigger { table_name, .. }
        | A::CreateView {
            view_name: table_name,
        }
        | A::CreateTempView {
            view_name: table_name,
        }
        | A::DropView {
            view_name: table_name,
        } => !is_ours(table_name),
        _ => true,
    }
}

fn is_ours(table: &str) -> bool {
    let prefix = "punctual_";
    table
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
