//! How SQLite runs the statements whose cost must not depend on what else is in the file (P13): the plans, and the steps
//! that they take.

use std::sync::Arc;

use rusqlite::{Connection, StatementStatus};

use crate::id::TaskId;
use crate::model::durability::Durability;
use crate::model::filter::Filter;
use crate::model::lane::{ClaimRequest, LaneClaim, QueueClaim};
use crate::model::new_task::Insert;
use crate::model::op::{Op, Reply};
use crate::model::outcome::Outcome;
use crate::model::pool::{PerPool, Pool};
use crate::model::retry::RetryPolicy;
use crate::model::settle::{Asked, Claim, End, settle};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::file::open;
use crate::store::sqlite::file::schema;
use crate::store::sqlite::ops::cancels;
use crate::store::sqlite::ops::change;
use crate::store::sqlite::ops::claim::{CANDIDATES, COUNT_RUNNING, TAKE, TAKE_HANDFUL};
use crate::store::sqlite::ops::expire::EXPIRIES;
use crate::store::sqlite::ops::forget::{FORGET, FORGET_QUEUE, RETIRE};
use crate::store::sqlite::ops::lanes::{
    FIND_LANE, HEAD, LANE, LANES, NEW_LANES, NEWLY_RETIRED, NEXT_HEAD, read_heads,
};
use crate::store::sqlite::ops::matching::{LAST_EXAMINED, LAST_EXAMINED_BACKWARDS, Matching};
use crate::store::sqlite::ops::prune::EXPIRED_RETENTION;
use crate::store::sqlite::ops::recur::row as rows;
use crate::store::sqlite::ops::recur::{
    change as recur_change, declare, exits, expected, fire, head, make, record, register, runs,
};
use crate::store::sqlite::ops::rescue::{self, ORPHANS};
use crate::store::sqlite::ops::settle;
use crate::store::sqlite::ops::transition;
use crate::store::sqlite::ops::write_tx::FORGET_EXPIRY;
use crate::store::sqlite::read::lanes::{IDLE_LANES, RETIRED_LANES};
use crate::store::sqlite::read::maintenance::{NEXT_EXPIRY, OLDEST_ENDED};
use crate::store::sqlite::read::recurrences;
use crate::store::sqlite::read::stats;
use crate::store::sqlite::read::{self, history, tasks};
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::suite;
use crate::store::{Settings, Store};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn schema() -> Connection {
    let conn = open::memory().unwrap();
    schema::migrate(&conn).unwrap();
    conn
}

/// A statement that might use a partial index would else be, for each value that is bound to it.
#[test]
fn p13_no_statement_is_prepared_anew_for_each_value() {
    let conn = schema();
    let mut statement = conn.prepare(EXPIRED_RETENTION).unwrap();
    for state in [20, 30, 40, 20] {
        let mut rows = statement.query((state, NOW.micros(), 2)).unwrap();
        assert!(rows.next().unwrap().is_none());
    }
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}

/// The lines of the plan that touch a table, in their order.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>("detail").unwrap());
    }
    lines
}

fn assert_plan(conn: &Connection, name: &str, sql: &str, expected: &str) {
    let lines = plan(conn, sql);
    let shown = format!("{name}: {lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains(expected)),
        "no {expected:?} in {shown}"
    );
    for line in &lines {
        assert!(!line.contains("SCAN task"), "{shown}");
        let scans = line.strip_prefix("SCAN punctual_");
        assert!(scans.is_none_or(|table| table == "lane"), "{shown}");
        assert!(!line.contains("TEMP B-TREE"), "{shown}");
        assert!(!line.contains("AUTOMATIC"), "{shown}");
    }
}

#[test]
fn p13_every_statement_finds_its_rows_by_an_index() {
    let conn = schema();
    let due = "USING COVERING INDEX punctual_task_due (lane=? AND priority=?";
    let ended = "USING COVERING INDEX punctual_task_ended (state=?";
    let row = "USING INTEGER PRIMARY KEY (rowid=?)";
    let id = "USING INDEX punctual_task_id (id=?)";
    let table = [
        (
            "candidates",
            CANDIDATES,
            "priority=? AND (scheduled_at,rowid)>(?,?))",
        ),
        ("head", HEAD, due),
        (
            "next head",
            NEXT_HEAD,
            "USING COVERING INDEX punctual_task_due ((lane,priority)>(?,?))",
        ),
        (
            "new lanes",
            NEW_LANES,
            "SEARCH lane USING INDEX punctual_lane_retired (retired=? AND rowid>?)",
        ),
        (
            "newly retired lanes",
            NEWLY_RETIRED,
            "SEARCH punctual_lane USING COVERING INDEX punctual_lane_retired (retired>?)",
        ),
        (
            "retired lanes",
            RETIRED_LANES,
            "SEARCH punctual_lane USING COVERING INDEX punctual_lane_retired (retired>?)",
        ),
        (
            "a lane by its name",
            FIND_LANE,
            "(queue=? AND kind=? AND class=? AND retired=?)",
        ),
        (
            "a lane",
            LANE,
            "SEARCH lane USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (
            "the pending tasks of lanes",
            IDLE_LANES,
            "SEARCH punctual_task USING COVERING INDEX punctual_task_due (lane=?)",
        ),
        (
            "the running tasks of lanes",
            IDLE_LANES,
            "SEARCH punctual_task USING COVERING INDEX punctual_task_running (lane=?)",
        ),
        (
            "idle lanes",
            IDLE_LANES,
            "SEARCH each USING INDEX punctual_lane_retired (retired=? AND rowid>?)",
        ),
        (
            "retire",
            RETIRE,
            "SEARCH each USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (
            "what is pending of one to be retired",
            RETIRE,
            "SEARCH punctual_task USING COVERING INDEX punctual_task_due (lane=?)",
        ),
        (
            "forget",
            FORGET,
            "SEARCH punctual_lane USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (
            "the lanes of a queue to be forgotten",
            FORGET_QUEUE,
            "SEARCH punctual_lane USING COVERING INDEX sqlite_autoindex_punctual_lane_1 (queue=?)",
        ),
        (
            "the lanes of orphans",
            ORPHANS,
            "SEARCH punctual_lane USING COVERING INDEX punctual_lane_retired (retired=?)",
        ),
        (
            "what runs of a lane",
            COUNT_RUNNING,
            "SEARCH punctual_task USING COVERING INDEX punctual_task_running (lane=?)",
        ),
        ("take", TAKE, row),
        ("take a handful", TAKE_HANDFUL, row),
        ("complete", transition::COMPLETE, row),
        ("complete a handful", transition::COMPLETE_HANDFUL, row),
        ("held", settle::HELD, row),
        ("release", transition::RELEASE, row),
        ("end", transition::END, row),
        ("end pending", transition::END_PENDING, row),
        ("revive", transition::REVIVE, row),
        ("reschedule", transition::RESCHEDULE, row),
        ("progress", settle::PROGRESS, row),
        ("find", change::FIND, id),
        ("task", tasks::TASK, id),
        ("state", tasks::STATE, id),
        ("history", history::HISTORY_TASK, id),
        (
            "lines of the history",
            history::HISTORY,
            "USING PRIMARY KEY (seq=?)",
        ),
        (
            "last examined",
            LAST_EXAMINED,
            "USING COVERING INDEX punctual_task_id (id>?)",
        ),
        (
            "last examined backwards",
            LAST_EXAMINED_BACKWARDS,
            "USING COVERING INDEX punctual_task_id (id<?)",
        ),
        (
            "retention",
            EXPIRED_RETENTION,
            "USING COVERING INDEX punctual_task_ended (state=? AND finished_at",
        ),
        ("cancels", cancels::READ, "USING PRIMARY KEY (instance=?)"),
        (
            "forget an expiry",
            FORGET_EXPIRY,
            "SEARCH punctual_expiry USING PRIMARY KEY (expires_at=? AND seq=?)",
        ),
        (
            "orphans",
            ORPHANS,
            "USING INDEX punctual_task_running (lane=? AND instance=?)",
        ),
        (
            "what a dead instance held",
            rescue::HELD,
            "USING INDEX punctual_task_running (lane=? AND instance=?)",
        ),
        (
            "a stride of pending ones",
            stats::PENDING_STRIDE,
            "priority=? AND (scheduled_at,rowid)>(?,?))",
        ),
        (
            "the rest of them",
            stats::PENDING_REST,
            "priority=? AND (scheduled_at,rowid)>(?,?))",
        ),
        ("a stride of ended ones", stats::ENDED_STRIDE, ended),
    ];
    for (name, sql, expected) in table {
        assert_plan(&conn, name, sql, expected);
    }
    let lists = [
        ("list", tasks::LIST),
        ("list backwards", tasks::LIST_BACKWARDS),
        ("count", tasks::COUNT),
        ("bulk", change::FIND_MATCHING),
    ];
    for (name, Matching { in_window, by_ids }) in lists {
        assert_plan(
            &conn,
            name,
            in_window,
            "USING INDEX punctual_task_id (id>? AND id<?)",
        );
        assert_plan(&conn, &format!("{name} by ids"), by_ids, id);
    }
}

#[test]
fn p13_every_statement_of_a_recurrence_finds_its_rows_by_an_index() {
    let conn = schema();
    let due = "punctual_recurrence_due (due_at";
    let expected = "punctual_recurrence_expected (expected_by";
    let row = "USING INTEGER PRIMARY KEY (rowid=?)";
    let run = "SEARCH punctual_recurrence_run USING PRIMARY KEY (recurrence=?";
    let table = [
        ("due", fire::DUE, due),
        ("next due", head::NEXT_DUE, due),
        ("overdue", fire::OVERDUE, expected),
        ("next expected", head::NEXT_EXPECTED, expected),
        (
            "outdated",
            fire::OUTDATED,
            "punctual_recurrence_tzdb (tzdb<?)",
        ),
        (
            "oldest",
            head::OLDEST_TZDB,
            "punctual_recurrence_tzdb (tzdb>?)",
        ),
        (
            "newest",
            head::NEWEST_TZDB,
            "punctual_recurrence_tzdb (tzdb>?)",
        ),
        ("run at an instant", runs::AT, run),
        ("leave a set", declare::LEAVE, "(name=?)"),
        (
            "the slots that wait from an instant on",
            make::UNBUFFER_FROM,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        (
            "calls that wait",
            make::WAITING_CALLS,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        ("by name", rows::BY_NAME, "(name=?)"),
        ("by id", rows::BY_ID, row),
        ("keep", rows::KEEP, row),
        ("definition", rows::DEFINITION, row),
        ("what is stored", register::STORED, row),
        ("replace definition", register::REPLACE_DEFINITION, row),
        ("edit definition", register::EDIT_DEFINITION, row),
        (
            "live tasks",
            make::LIVE,
            "SEARCH live USING COVERING INDEX punctual_recurrence_live_recurrence (recurrence=?)",
        ),
        ("end of a live task", exits::END_LIVE, row),
        ("a live task of another", make::REPLACE_LIVE, row),
        ("made", exits::MADE, row),
        (
            "first that waits",
            make::FIRST_BUFFERED,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        (
            "how many slots wait",
            make::WAITING_FROM,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        (
            "whether a task waits",
            make::WAITS,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        (
            "tasks that a completion meets",
            expected::MEET,
            "SEARCH punctual_recurrence_live USING INDEX punctual_recurrence_live_expected (recurrence=? AND rowid<?)",
        ),
        (
            "the task that owes a completion longest",
            expected::UNMET,
            "SEARCH live USING COVERING INDEX punctual_recurrence_live_since (recurrence=? AND since>?)",
        ),
        (
            "live tasks that have a span from now on",
            expected::EXPECT_LIVE,
            "SEARCH punctual_recurrence_live USING INDEX punctual_recurrence_live_recurrence (recurrence=?)",
        ),
        (
            "live tasks of which nothing is expected any more",
            expected::EXPECT_NOTHING,
            "SEARCH punctual_recurrence_live USING INDEX punctual_recurrence_live_expected (recurrence=?)",
        ),
        (
            "rules of runs",
            runs::RULES,
            "SEARCH run USING PRIMARY KEY (recurrence=?)",
        ),
        (
            "one that waits no more",
            make::UNBUFFER,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=? AND number=?)",
        ),
        ("last of the oldest runs", runs::LAST_OF_OLDEST, run),
        ("forget runs", runs::FORGET, run),
        ("delete a run", runs::DELETE, run),
        ("delete later runs", runs::DELETE_FROM, run),
        ("cut a run", runs::CUT, run),
        (
            "forget rules",
            runs::FORGET_RULES,
            "SEARCH punctual_recurrence_rule USING PRIMARY KEY (recurrence=?",
        ),
        (
            "former rule",
            record::FORMER_RULE,
            "PRIMARY KEY (recurrence=? AND number=?)",
        ),
        ("set's revision", declare::REVISION, "PRIMARY KEY (name=?)"),
        ("set of one", declare::SET_OF, "(name=?)"),
        ("join a set", declare::JOIN, "(name=?)"),
        (
            "members of a set",
            declare::MEMBERS,
            "punctual_recurrence_declared (declared_in=?)",
        ),
        ("runs in a range", record::RUNS, run),
        (
            "slots that wait",
            record::WAITING,
            "SEARCH punctual_recurrence_buffer USING PRIMARY KEY (recurrence=?)",
        ),
        ("page", recurrences::PAGE, "(name>?)"),
    ];
    for (name, sql, expected) in table {
        assert_plan(&conn, name, sql, expected);
    }
    // All entries of the index are the answer.
    let troubled = "SCAN punctual_recurrence USING INDEX punctual_recurrence_troubled";
    assert_eq!(plan(&conn, head::TROUBLED), [troubled]);
    let all = "SCAN punctual_recurrence";
    assert_eq!(
        plan(&conn, recurrences::DECIDED_AFTER),
        [all],
        "and no sorting"
    );
    for sql in recur_change::REMOVE {
        assert_plan(&conn, "remove", sql, "=?)");
    }
}

/// Passes over an index on purpose: what it reads is what it counts, or the first entry.
#[test]
fn p13_what_passes_over_an_index_does_not_touch_the_table() {
    let conn = schema();
    let table = [
        ("running", stats::RUNNING, "INDEX punctual_task_running"),
        ("ended", stats::ENDED, "COVERING INDEX punctual_task_ended"),
        ("expiries", EXPIRIES, "USING INTEGER PRIMARY KEY (rowid=?)"),
        ("next expiry", NEXT_EXPIRY, "SCAN punctual_expiry"),
        (
            "oldest ended",
            OLDEST_ENDED,
            "COVERING INDEX punctual_task_ended (state=?",
        ),
        (
            "lanes",
            LANES,
            "SEARCH queue USING INTEGER PRIMARY KEY (rowid=?)",
        ),
    ];
    for (name, sql, expected) in table {
        let lines = plan(&conn, sql);
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{name}: {lines:#?}"
        );
        assert!(
            !lines.iter().any(|line| line == "SCAN punctual_task"),
            "{name}: {lines:#?}"
        );
    }
}

struct Kit {
    store: SqliteStore,
    _dir: tempfile::TempDir,
}

fn task(kind: &str, queue: &str, priority: u8, at: Timestamp) -> Insert {
    Insert {
        kind: kind.to_owned().into(),
        queue: queue.to_owned().into(),
        priority,
        max_attempts: 1,
        ..suite::due(at)
    }
}

impl Kit {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            durability: Durability::ProcessCrash,
            busy_wait: std::time::Duration::from_secs(60),
            ..Settings::new(true)
        };
        let store = SqliteStore::open(
            &dir.path().join("plans.db"),
            settings,
            &SqliteSettings::default(),
            NOW,
        )
        .unwrap();
        Self { store, _dir: dir }
    }

    fn insert(&self, count: usize, make: impl Fn(usize) -> Insert) {
        for chunk in (0..count).collect::<Vec<_>>().chunks(5_000) {
            let tasks = chunk.iter().map(|n| make(*n)).collect();
            self.store.apply(NOW, vec![Op::Insert(tasks)]).unwrap();
        }
    }

    /// What a claim costs that takes `free` tasks of the known kind, in steps of SQLite's machine, and how many it took.
    fn claim(&self, free: usize) -> (i32, usize) {
        let steps = |reset: bool| -> i32 {
            self.store.turn.with_writer(|writer| {
                let conn = writer.connection();
                [CANDIDATES, TAKE, TAKE_HANDFUL]
                    .into_iter()
                    .map(|sql| {
                        let statement = conn.prepare_cached(sql).unwrap();
                        let full = statement.get_status(StatementStatus::FullscanStep);
                        assert_eq!(full, 0, "{sql}");
                        match reset {
                            true => statement.reset_status(StatementStatus::VmStep),
                            false => statement.get_status(StatementStatus::VmStep),
                        }
                    })
                    .sum()
            })
        };
        steps(true);
        let taken = self.take(free);
        (steps(false), taken)
    }

    fn take(&self, free: usize) -> usize {
        self.claims(free).len()
    }

    fn claims(&self, free: usize) -> Vec<Claim> {
        let lanes = self
            .store
            .lanes()
            .list
            .iter()
            .filter(|lane| *lane.kind == *"known" && !lane.paused)
            .map(|lane| LaneClaim {
                lane: lane.id,
                cost: None,
                class: lane.class,
                pool: Pool::Threads,
                beside_suspects: None,
            })
            .collect();
        let request = ClaimRequest {
            queues: vec![QueueClaim {
                lanes,
                limit: usize::MAX,
            }],
            free: PerPool::threads(free),
            budget: std::time::Duration::ZERO,
            limit: 256,
            suspects: Default::default(),
            lanes_version: 0,
        };
        match self
            .store
            .apply(NOW, vec![Op::Claim(request)])
            .unwrap()
            .remove(0)
        {
            Reply::Claimed(claims) => claims,
            other => panic!("{other:?}"),
        }
    }
}

const MANY: usize = 20_000;

/// What a claim of one task costs when nothing else is in the file.
fn alone() -> i32 {
    let kit = Kit::new();
    kit.insert(1, |_| task("known", "default", 5, NOW));
    let (steps, taken) = kit.claim(9);
    assert_eq!(taken, 1);
    steps
}

#[test]
fn p13_a_claim_does_not_visit_what_it_cannot_take() {
    let later = NOW + std::time::Duration::from_secs(1);
    let alone = alone();
    type Crowd = fn(usize, Timestamp) -> Insert;
    let crowds: [(&str, Crowd); 5] = [
        ("future tasks of better priorities", |n, later| {
            task("known", "default", (n % 5) as u8, later)
        }),
        ("future tasks of the same priority", |_, later| {
            task("known", "default", 5, later)
        }),
        ("an unknown kind", |_, _| task("unknown", "default", 0, NOW)),
        ("another queue", |_, _| task("other", "other", 0, NOW)),
        ("a paused queue", |_, _| task("known", "paused", 0, NOW)),
    ];
    for (name, crowd) in crowds {
        let kit = Kit::new();
        let pause = Op::PauseQueue {
            queue: "paused".to_owned(),
            paused: true,
        };
        kit.store.apply(NOW, vec![pause]).unwrap();
        kit.insert(MANY, |n| crowd(n, later));
        kit.insert(1, |_| task("known", "default", 5, NOW));
        let (steps, taken) = kit.claim(9);
        assert_eq!(taken, 1, "{name}");
        // A few steps more tell when the next one is due.
        assert!(steps <= alone + 60, "{name}: {steps} steps, {alone} alone");
    }
}

#[test]
fn p13_a_claim_does_not_visit_what_has_ended_or_runs() {
    let alone = alone();
    let kit = Kit::new();
    kit.insert(MANY, |_| task("known", "default", 5, NOW));
    let finished = finish_all(&kit);
    assert_eq!(finished, MANY - 256, "the rest runs");
    kit.insert(1, |_| task("known", "default", 5, NOW));
    let (steps, taken) = kit.claim(9);
    assert_eq!(taken, 1);
    assert!(steps <= alone + 60, "{steps} steps, {alone} alone");
}

/// Takes everything, and ends all of it but the last claim.
fn finish_all(kit: &Kit) -> usize {
    let mut taken = 0;
    while taken < MANY {
        taken += kit.take(256);
    }
    kit.store.turn.with_writer(|writer| {
        let sql = "UPDATE punctual_task SET state = 20, finished_at = 1 WHERE seq <= ?";
        writer
            .connection()
            .execute(sql, [MANY as i64 - 256])
            .unwrap()
    })
}

#[test]
fn p13_a_claim_of_a_few_costs_the_same_whatever_the_backlog() {
    let cost = |backlog: usize| {
        let kit = Kit::new();
        kit.insert(backlog, |n| task("known", "default", (n % 10) as u8, NOW));
        let (steps, taken) = kit.claim(2);
        assert_eq!(taken, 2);
        steps
    };
    let (small, large) = (cost(5_000), cost(MANY));
    let alone = alone();
    assert!(
        small <= 2 * alone + 100,
        "{small} steps for two, {alone} for one alone"
    );
    assert!(
        large <= small + small / 10,
        "{small} steps of 5,000, {large} of {MANY}"
    );
}

#[test]
fn p13_the_next_due_time_of_a_lane_is_a_seek() {
    let kit = Kit::new();
    kit.insert(MANY, |_| task("known", "default", 5, NOW));
    let steps = kit.store.turn.with_writer(|writer| {
        let conn = writer.connection();
        let mut head = conn.prepare_cached(HEAD).unwrap();
        let at: i64 = head.query_row([1, 5], |row| row.get(0)).unwrap();
        assert_eq!(at, NOW.micros());
        head.reset_status(StatementStatus::VmStep)
    });
    assert!(steps < 40, "{steps}");
}

#[test]
fn p13_the_heads_are_read_by_a_seek_each() {
    let kit = Kit::new();
    kit.insert(MANY, |n| task("known", "default", (n % 2) as u8, NOW));
    kit.insert(1, |_| task("other", "default", 9, NOW));
    let steps = kit.store.turn.with_writer(|writer| {
        let conn = writer.connection();
        let heads = read_heads(conn).unwrap();
        assert_eq!(heads.len(), 3);
        let next = conn.prepare_cached(NEXT_HEAD).unwrap();
        next.reset_status(StatementStatus::VmStep)
    });
    assert!(steps < 4 * 40, "{steps}");
}

#[test]
fn p13_a_list_by_ids_visits_those_alone() {
    let kit = Kit::new();
    kit.insert(MANY, |_| task("known", "default", 5, NOW));
    let all = kit
        .store
        .read(crate::model::query::Query::List(Filter::all()))
        .unwrap();
    let ids: Vec<TaskId> = all
        .list()
        .tasks()
        .iter()
        .map(|task| task.id())
        .take(3)
        .collect();
    let filter = Filter::new().ids(ids);
    let lanes = Arc::clone(&kit.store.shared);
    let steps = kit.store.turn.with_writer(|writer| {
        let conn = writer.connection();
        let query = crate::model::query::Query::List(filter.clone());
        let page = read::read(conn, &lanes.lanes, &query).unwrap().list();
        assert_eq!(page.tasks().len(), 3);
        let statement = conn.prepare_cached(tasks::LIST.by_ids).unwrap();
        statement.get_status(StatementStatus::VmStep)
    });
    assert!(steps < 1_000, "{steps}");
}

/// A row that grew would not fit its page any more, and each page be split.
#[test]
fn p13_a_row_that_is_claimed_and_completed_keeps_its_length() {
    let kit = Kit::new();
    kit.insert(1_000, |_| task("known", "default", 5, NOW));
    let pages = || -> i64 {
        let sql = "SELECT count(*) FROM dbstat WHERE name = 'punctual_task'";
        let count = |conn: &Connection| conn.query_row(sql, [], |row| row.get(0));
        kit.store.with_reader(count).unwrap()
    };
    let before = pages();
    for _ in 0..10 {
        let claims = kit.claims(100);
        assert_eq!(claims.len(), 100);
        let policy = RetryPolicy::default();
        let done = |claim: &Claim| {
            let result = Ok(Outcome::done());
            let end = End::Returned {
                result,
                asked: Asked::Not,
            };
            settle(claim, end, &policy, 0.5, NOW).into()
        };
        let all = claims.iter().map(done).collect();
        kit.store.apply(NOW, vec![Op::Settle(all)]).unwrap();
    }
    assert_eq!(pages(), before);
}
