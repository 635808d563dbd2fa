-- Schema 1. Times are microseconds since 1970 UTC; ids are 16 bytes; JSON is BLOB.
-- The names in braces stand for numbers (sql.rs), which never change once a file has them.

CREATE TABLE punctual_meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE punctual_queue (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused_at INTEGER,
    max_running INTEGER
) STRICT;

-- The few queues that are paused or limited, read again after each commit of another process.
CREATE INDEX punctual_queue_set ON punctual_queue (id) WHERE paused_at IS NOT NULL OR max_running IS NOT NULL;

-- A queue's tasks of one kind and class: 0 plain, 1 suspect (they have crashed a process), 2 delivered at most once. A
-- lane for each, so that a claim that may not take them does not visit them. The number of a lane is never used again.
-- retired is {in_use} for a lane in use. A lane that was idle for a while gets the number of its retirement instead: no
-- task is added to it any more, and it is deleted once its ended tasks are. The next task of its queue, kind and class gets
-- a new lane.
CREATE TABLE punctual_lane (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL REFERENCES punctual_queue (id),
    kind TEXT NOT NULL,
    class INTEGER NOT NULL,
    retired INTEGER NOT NULL DEFAULT {in_use},
    UNIQUE (queue, kind, class, retired)
) STRICT;

-- The lanes in use, and those retired after a known number.
CREATE INDEX punctual_lane_retired ON punctual_lane (retired);

-- An instance that is not ended holds the lock on its file, or is dead. file_device and file_inode name the database file
-- that it has opened: in a copy of the file they show that it holds nothing there. ran and only_cause are noted when the first
-- of its tasks are taken back: how many it ran when it died, and the row of the one that alone can have caused that.
CREATE TABLE punctual_instance (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    pid_namespace TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started_at INTEGER NOT NULL,
    lock_inode INTEGER NOT NULL,
    file_device INTEGER NOT NULL,
    file_inode INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    ran INTEGER,
    only_cause INTEGER
) STRICT;

-- seq is the order of insertion, and never public. What changes with every attempt stands before the payload, which is
-- inline up to 1 KiB. extras is a set of bits (sql.rs): what a task has in other tables.
-- room is as many bytes as the numbers that a claim and a completion will add: a row that keeps its length is written in
-- place, and its page never split. That saves a fifth of the work of both, for 23 bytes in a pending row.
CREATE TABLE punctual_task (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    lane INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    claim_no INTEGER NOT NULL,
    instance INTEGER,
    scheduled_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    expires_at INTEGER,
    cancel_requested_at INTEGER,
    room BLOB,
    extras INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    partition TEXT,
    options BLOB,
    payload BLOB
) STRICT;

CREATE UNIQUE INDEX punctual_task_id ON punctual_task (id);

-- The claim: per lane and priority, the due ones first, in the order of their insertion. About 2 µs a task in and out.
CREATE INDEX punctual_task_due ON punctual_task (lane, priority, scheduled_at) WHERE state = {pending};

-- What instances hold, for the limits of queues and for their rescue. About 1 µs a task in and out: it is never large.
CREATE INDEX punctual_task_running ON punctual_task (lane, instance) WHERE state = {running};

-- What has ended, for pruning and counting. About 1 µs a task: it grows at its end. One index for both would cost more: the
-- few that run are found sooner among themselves.
CREATE INDEX punctual_task_ended ON punctual_task (state, finished_at, lane) WHERE finished_at IS NOT NULL;

-- No further index: it would cost each insert, claim and completion 0.2 µs, even of a task that is not in it.

-- Cancellations of running attempts that their own process has not read yet.
CREATE TABLE punctual_cancel (
    instance INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    claim_no INTEGER NOT NULL,
    PRIMARY KEY (instance, seq, claim_no)
) STRICT, WITHOUT ROWID;

-- Start deadlines. A task that is started in time keeps its row until that instant; then the row proves void, since the task
-- itself says whether it has still to be started. So a claim need not touch the row. A task without a deadline has no row.
CREATE TABLE punctual_expiry (
    expires_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (expires_at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE punctual_payload (
    seq INTEGER PRIMARY KEY,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE punctual_result (
    seq INTEGER PRIMARY KEY,
    result BLOB NOT NULL
) STRICT;

CREATE TABLE punctual_progress (
    seq INTEGER PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- What went wrong besides the handler's own errors: how many attempts ended with their process, for how many of these ends
-- the task was blamed, and how often in a row its payload could not be decoded. A task with none of that has no row: as a
-- column of the task, each number would cost every insert and claim 1 %.
CREATE TABLE punctual_trouble (
    seq INTEGER PRIMARY KEY,
    crashes INTEGER NOT NULL,
    blamed INTEGER NOT NULL,
    undecoded INTEGER NOT NULL
) STRICT;

CREATE TABLE punctual_tag (
    seq INTEGER NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (seq, tag)
) STRICT, WITHOUT ROWID;

-- Attempts that did not complete their task. The task's row describes the current one, and one that did complete it.
CREATE TABLE punctual_attempt (
    seq INTEGER NOT NULL,
    claim_no INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    instance INTEGER,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    ending INTEGER NOT NULL,
    error TEXT,
    PRIMARY KEY (seq, claim_no)
) STRICT, WITHOUT ROWID;
