//! Processes that write as fast as they can: each has its share.

use std::collections::HashMap;
use std::time::Duration;

use punctual::rusqlite::Connection;
use punctual::{Client, Filter, NewTask};

use super::kit::{Line, Part, Place, Process, Since, part, slow_syncs};

/// Long enough for a process to be starved, were there nothing against it, in milliseconds.
const SPAN: u64 = 2_500;

#[test]
#[ignore = "a child process that commits as fast as it can"]
fn child() {
    let Some(part) = Part::played() else { return };
    let client = Client::open(&part.file).expect("to open the file");
    part.say(&Line::Opened);
    part.next_order();
    let span = Duration::from_millis(part.argument(0));
    let since = Since::now();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while since.elapsed() < span {
        let call = Since::now();
        client
            .schedule(NewTask::with_kind("note", &std::process::id()))
            .expect("to schedule");
        longest = longest.max(call.elapsed());
        count += 1;
    }
    part.note(format!("{count} {}", longest.as_millis()));
}

/// SQLite's lock is neither fair nor woken: by its own busy timeout the share of one of two is often a tenth, and of one of
/// four nothing at all.
#[test]
fn p12_no_process_is_starved_by_others_that_write_all_the_time() {
    // A synced commit takes 0.2 to 1 ms: these take 250 ms at most.
    const MOST: usize = 250;
    for processes in [2, 4] {
        let place = Place::new();
        let start = || Process::start(part!(child), &place.file(), &[&10_000]);
        each_has_its_share(&place, (0..processes).map(|_| start()).collect());
        let longest = longest_wait(&place, "payload");
        eprintln!("fair: of {processes}: {longest} commits of others between two of one");
        assert!(longest <= MOST, "{longest} commits of others");
    }
}

/// Then the lock is free for a few microseconds only, once in 20 ms, and who looks now and then seldom finds it so: it has to
/// be left free for those who wait. So many commits of others are 250 ms.
#[test]
fn p12_no_process_waits_for_long_where_syncs_take_long() {
    const MOST: usize = 12;
    let place = Place::new();
    let start = || Process::start_as(slow_syncs(&place), part!(child), &place.file(), &[&SPAN]);
    each_has_its_share(&place, (0..3).map(|_| start()).collect());
    let longest = longest_wait(&place, "payload");
    eprintln!("fair: {longest} commits of others between two of one");
    assert!(longest <= MOST, "{longest} commits of others");
}

/// How many commits of others there were, at most, between two of the same process or kind: of the same value in a column.
fn longest_wait(place: &Place, column: &str) -> usize {
    let conn = place.look();
    let sql = format!("SELECT CAST({column} AS TEXT) FROM punctual_task ORDER BY seq");
    let mut tasks = conn.prepare(&sql).expect("the tasks");
    let whose = tasks
        .query_map([], |row| row.get::<_, String>(0))
        .expect("the tasks");
    let mut last = HashMap::new();
    let mut longest = 0;
    for (at, whose) in whose.enumerate() {
        if let Some(before) = last.insert(whose.expect("a task"), at) {
            longest = longest.max(at - before - 1);
        }
    }
    longest
}

fn each_has_its_share(place: &Place, mut children: Vec<Process>) {
    let client = Client::open(place.file()).expect("to open the file");
    let processes = children.len() as u64;
    for child in &children {
        assert_eq!(child.line(), Line::Opened);
    }
    for child in &mut children {
        child.order("begin");
    }
    let mut counts = Vec::new();
    for child in children {
        let Line::Note(text) = child.line() else {
            panic!("a child says something else");
        };
        let (count, longest) = text.split_once(' ').expect("two numbers");
        eprintln!("fair: of {processes}: {count} commits, longest wait {longest} ms");
        counts.push(count.parse::<u64>().expect("a number"));
    }
    let all: u64 = counts.iter().sum();
    assert_eq!(client.count(&Filter::all()).expect("to count"), all);
    let least = counts.iter().min().expect("some");
    assert!(
        2 * least * processes >= all,
        "less than half of a fair share: {counts:?}"
    );
}

/// SQLite's own busy timeout sleeps longer and longer, and beside three that write all the time it was seen to let 2,000 to 4,000
/// commits pass.
#[test]
fn p12_a_connection_of_the_user_s_own_comes_to_its_turn() {
    const MOST: usize = 400;
    let place = Place::new();
    let client = Client::open(place.file()).expect("to open the file");
    let start = || Process::start(part!(child), &place.file(), &[&SPAN]);
    let mut children: Vec<_> = (0..3).map(|_| start()).collect();
    for child in &children {
        assert_eq!(child.line(), Line::Opened);
    }
    let mut conn = Connection::open(place.file()).expect("to open the file");
    client
        .sqlite()
        .expect("SQLite")
        .set_busy_handler(&mut conn)
        .expect("to wait its turn");
    for child in &mut children {
        child.order("begin");
    }
    let since = Since::now();
    while since.elapsed() < Duration::from_millis(SPAN) {
        let tx = conn.transaction().expect("a transaction");
        let own = NewTask::with_kind("own", &1);
        client
            .sqlite()
            .expect("SQLite")
            .schedule_in(&tx, own)
            .expect("to schedule");
        tx.commit().expect("to commit");
    }
    for child in &children {
        assert!(matches!(child.line(), Line::Note(_)));
    }
    let longest = longest_wait(&place, "lane");
    eprintln!("fair: {longest} commits of three others between two of one's own");
    assert!(longest <= MOST, "{longest} commits of others");
}
