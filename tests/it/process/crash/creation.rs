//! A process that is killed while it creates the file.

use std::time::Duration;

use punctual::Client;

use super::child::{Handlers, open};
use super::{Held, Mode};
use crate::process::kit::{Line, Part, Place, Process, Since, part, seed, spin};

#[test]
#[ignore = "a child process that creates a file"]
fn child() {
    let Some(part) = Part::played() else { return };
    part.die_with_parent();
    part.say(&Line::Opening);
    let handlers = Handlers {
        quick_is_async: false,
        held_is_async: true,
        on_tokio: false,
    };
    let scheduler = open(&part, 1, Mode::Last, handlers);
    part.say(&Line::Opened);
    scheduler
        .schedule(Held { attempts: 0 })
        .expect("to schedule");
    loop {
        std::thread::park();
    }
}

/// P1, P12: a process that dies while it creates the file leaves none, or one that the next can use.
#[test]
fn a_file_whose_creator_was_killed_can_be_used() {
    let seed = seed("creation");
    let mut random = fastrand::Rng::with_seed(seed);
    // It opens the file, if it is let.
    let place = Place::new();
    let process = Process::start(part!(child), &place.file(), &[]);
    process.read_until(|line| *line == Line::Opening);
    let since = Since::now();
    process.read_until(|line| *line == Line::Opened);
    let takes = since.elapsed().as_micros() as u64;
    process.kill();
    let mut hits = 0;
    for _ in 0..20 {
        let place = Place::new();
        let process = Process::start(part!(child), &place.file(), &[]);
        let mut lines = process.read_until(|line| *line == Line::Opening);
        spin(Duration::from_micros(random.u64(0..takes)));
        lines.extend(process.kill());
        hits += usize::from(!lines.contains(&Line::Opened));
        let client = Client::open(place.file()).expect("to open what is there");
        let id = client
            .schedule(Held { attempts: 0 })
            .expect("to schedule")
            .id();
        assert!(client.get(id).expect("to read").is_some());
        assert!(
            place.lock_files().is_empty(),
            "P14: a lock file of the dead"
        );
    }
    eprintln!("creation: {hits} kills before it was done");
    assert!(hits >= 5, "{hits} kills came before the file was made");
}
