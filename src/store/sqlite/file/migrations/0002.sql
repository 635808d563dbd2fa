-- Schema 2: recurrences.

-- A random mark of the file, from which the ids of recurrences' tasks are drawn.
INSERT INTO punctual_meta (key, value) VALUES ('mark', randomblob(16));

-- What changes with each slot. What the tasks are made of is in a table of its own: a large payload in this row would be
-- written anew for each slot. due_at is when the store has to act: at next_slot, or at once where a search for the next slot
-- has to go on; NULL if it has no slot any more, or is paused and no search goes on. Slots up to decided_until are decided;
-- after it there is none up to searched_until, while a search goes on or the first slot is to come later. The last decisions
-- that were alike are run_first, run_last and run_fate; those before them, runs many, are in punctual_recurrence_run. rule is
-- the number of its rule, which grows with each other one. expected_since is from when on the span expect_within to a
-- completion counts.
CREATE TABLE punctual_recurrence (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    due_at INTEGER,
    next_slot INTEGER,
    decided_until INTEGER NOT NULL,
    searched_until INTEGER,
    previous_slot INTEGER,
    made INTEGER NOT NULL,
    buffered INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    paused_at INTEGER,
    paused_by INTEGER,
    expect_within INTEGER,
    expected_since INTEGER,
    expected_by INTEGER,
    overdue_since INTEGER,
    completed_at INTEGER,
    run_first INTEGER,
    run_last INTEGER,
    run_fate INTEGER,
    runs INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    forgotten_until INTEGER,
    declared_in TEXT,
    tzdb TEXT,
    decided_civil TEXT
) STRICT;

-- Those that are due at one instant fire in the order of their ids, which is that of their tasks' ids.
CREATE INDEX punctual_recurrence_due ON punctual_recurrence (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX punctual_recurrence_expected ON punctual_recurrence (expected_by) WHERE expected_by IS NOT NULL;

-- The few that are overdue, or paused by something else than a caller, read again after each commit of another process.
CREATE INDEX punctual_recurrence_troubled ON punctual_recurrence (id) WHERE overdue_since IS NOT NULL OR paused_by > 0;

-- By which version of the time zone database the next slot was found; NULL if that does not matter. decided_civil is
-- a JSON object: for each time zone of the rule, up to which civil time its slots are decided, by that version; NULL if none is, or if that
-- does not matter.
CREATE INDEX punctual_recurrence_tzdb ON punctual_recurrence (tzdb) WHERE tzdb IS NOT NULL;

-- Those that a program declares as its own, by the name of its set.
CREATE INDEX punctual_recurrence_declared ON punctual_recurrence (declared_in) WHERE declared_in IS NOT NULL;

CREATE TABLE punctual_recurrence_set (
    name TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- registered and registered_payload are what the program gave last, if an edit has changed it since.
CREATE TABLE punctual_recurrence_definition (
    id INTEGER PRIMARY KEY,
    definition BLOB NOT NULL,
    payload BLOB NOT NULL,
    registered BLOB,
    registered_payload BLOB
) STRICT;

-- The live tasks of recurrences. A row goes with the end of its task. from_at is the slot, or when the task was made, if that
-- was later; NULL for a call. since is from when on its completion is expected, NULL if none is. The last two indexes hold
-- nothing for recurrences that expect no completion.
CREATE TABLE punctual_recurrence_live (
    seq INTEGER PRIMARY KEY,
    recurrence INTEGER NOT NULL,
    from_at INTEGER,
    since INTEGER
) STRICT;

CREATE INDEX punctual_recurrence_live_recurrence ON punctual_recurrence_live (recurrence);

-- By the rows of the tasks: which a completion meets.
CREATE INDEX punctual_recurrence_live_expected ON punctual_recurrence_live (recurrence) WHERE since IS NOT NULL;

CREATE INDEX punctual_recurrence_live_since ON punctual_recurrence_live (recurrence, since) WHERE since IS NOT NULL;

-- Slots, and calls without a slot, that wait for the end of a live task.
CREATE TABLE punctual_recurrence_buffer (
    recurrence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    id BLOB NOT NULL,
    slot INTEGER,
    PRIMARY KEY (recurrence, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE punctual_recurrence_run (
    recurrence INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    fate INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    PRIMARY KEY (recurrence, first)
) STRICT, WITHOUT ROWID;

-- The former rules of recurrences, which runs are of.
CREATE TABLE punctual_recurrence_rule (
    recurrence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    rule BLOB NOT NULL,
    PRIMARY KEY (recurrence, number)
) STRICT, WITHOUT ROWID;
