//! The shape of the sources: floors, sizes, one door for time and threads, SQL in the store alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a file may be, its tests not counted.
const MAX_LINES: usize = 700;

struct Source {
    /// From `src`, with slashes.
    name: String,
    code: String,
}

/// Every file under `src`, as it is.
fn files() -> Vec<Source> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            Source {
                name: name.replace('\\', "/"),
                code: fs::read_to_string(path).unwrap(),
            }
        })
        .collect()
}

/// The files without their tests.
fn sources() -> Vec<Source> {
    let files = files();
    let tests = test_modules(&files);
    files
        .into_iter()
        .filter(|file| !tests.iter().any(|test| file.name.starts_with(test)))
        .map(|Source { name, code }| {
            // An inline module of tests is the last thing of its file.
            let code = code.split("mod tests {").next().unwrap().to_owned();
            Source { name, code }
        })
        .collect()
}

/// The files and folders of modules that are compiled for tests alone.
fn test_modules(files: &[Source]) -> Vec<String> {
    let mut modules = Vec::new();
    for Source { name, code } in files {
        let folder = match name.strip_suffix("mod.rs") {
            Some(folder) => folder.to_owned(),
            None if name == "lib.rs" => String::new(),
            None => format!("{}/", name.strip_suffix(".rs").unwrap()),
        };
        let lines: Vec<&str> = code.lines().collect();
        for pair in lines.windows(2) {
            let for_tests = pair[0].starts_with("#[cfg(")
                && pair[0].contains("test")
                && !pair[0].contains("feature = \"testing\")]")
                || pair[0].starts_with("#[cfg(all(test");
            let module = pair[1]
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .strip_prefix("mod ");
            if let (true, Some(module)) = (for_tests, module.and_then(|m| m.strip_suffix(';'))) {
                modules.push(format!("{folder}{module}.rs"));
                modules.push(format!("{folder}{module}/"));
            }
        }
    }
    modules
}

/// Lines that are no comment.
fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .code
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The floor of a module, by the first part of its path; `None`: beside the house.
fn floor(module: &str) -> Option<u32> {
    Some(match module {
        "error" | "id" | "clock" | "time" | "sync" | "wake" | "log" | "thread" | "panics"
        | "process" => 0,
        "model" => 1,
        "store" => 2,
        "client" | "handler" => 3,
        "runtime" => 4,
        "scheduler" | "lib" => 5,
        "testing" => return None,
        other => panic!("src/{other} has no floor: give it one in tests/it/tidy.rs"),
    })
}

fn module(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

fn problems(check: impl FnMut(&Source, &mut Vec<String>)) {
    problems_in(&sources(), check);
}

fn problems_in(sources: &[Source], mut check: impl FnMut(&Source, &mut Vec<String>)) {
    assert!(sources.len() > 40, "the sources are found");
    let mut found = Vec::new();
    for source in sources {
        check(source, &mut found);
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Nor do its tests: what needs a whole scheduler is tested beside `testing`, which may import everything.
#[test]
fn a_module_imports_no_higher_floor() {
    problems_in(&files(), |source, found| {
        let own = module(&source.name);
        for (number, line) in lines(source) {
            for path in line.split("crate::").skip(1) {
                let target: String = path
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                // A name of the crate's root, or several in braces.
                let is_root = target.is_empty() || target.starts_with(char::is_uppercase);
                let target = if is_root { "lib" } else { &target };
                let upward = match (floor(own), floor(target)) {
                    (Some(own), Some(target)) => target > own,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if upward {
                    found.push(format!(
                        "src/{}:{number} imports {target}: {line}",
                        source.name
                    ));
                }
            }
        }
    });
}

#[test]
fn no_file_is_too_long() {
    problems(|source, found| {
        let count = source.code.lines().count();
        if count > MAX_LINES {
            found.push(format!(
                "src/{} has {count} lines, more than {MAX_LINES}",
                source.name
            ));
        }
    });
}

#[test]
fn time_and_threads_have_one_door_each() {
    let doors = [
        ("Instant::now", "time.rs"),
        ("SystemTime::now", "time.rs"),
        ("Utc::now", "clock.rs"),
        ("thread::sleep", "time.rs"),
        ("thread::spawn", "thread.rs"),
        ("thread::Builder", "thread.rs"),
    ];
    problems(|source, found| {
        for (number, line) in lines(source) {
            for (call, door) in doors {
                if line.contains(call) && source.name != door {
                    found.push(format!("src/{}:{number} has {call}: {line}", source.name));
                }
            }
        }
    });
}

#[test]
fn sql_is_in_the_store_alone() {
    let words = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE punctual",
        "DELETE FROM",
        "PRAGMA ",
        "punctual_task",
        "BEGIN IMMEDIATE",
    ];
    problems(|source, found| {
        if module(&source.name) == "store" {
            return;
        }
        for (number, line) in lines(source) {
            for word in words {
                if line.contains(word) {
                    found.push(format!("src/{}:{number} has SQL: {line}", source.name));
                }
            }
        }
    });
}

#[test]
fn nothing_is_left_to_be_done() {
    // Put together, so that this line is not found.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    problems(|source, found| {
        for (index, line) in source.code.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!("src/{}:{}: {line}", source.name, index + 1));
            }
        }
    });
}

/// A task leaves its state at one place, so that what hangs on tasks is let go at one place.
#[test]
fn only_transitions_end_tasks_and_have_them_wait() {
    let marks = [
        "SET state =",
        ", state =",
        "done.news.ended",
        "learnt.added(",
    ];
    problems(|source, found| {
        // A claim begins an attempt; all else ends one, or concerns a task that has none.
        let is_exempt = source.name.ends_with("/transition.rs")
            || source.name.ends_with("/claim.rs")
            || module(&source.name) != "store";
        for (number, line) in lines(source).filter(|_| !is_exempt) {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!(
                    "src/{}:{number} changes the state of a task: {line}",
                    source.name
                ));
            }
        }
    });
}

/// The floor of a part of `store`: what every engine shares, and the engines above it.
fn store_floor(part: &str) -> u32 {
    match part {
        "lanes" | "pace" | "events" | "waiters" | "standing_claim" | "ticket" | "transaction" => 0,
        "signals" => 1,
        "done" => 2,
        "turn" => 3,
        "sqlite" => 4,
        "mod" | "faulty" => 5,
        other => panic!("store/{other} has no floor: give it one in tests/it/tidy.rs"),
    }
}

/// The floor of a part of the SQLite store, by the folder or file under `store/sqlite`.
fn sqlite_floor(part: &str) -> u32 {
    match part {
        "error" | "settings" | "sql" => 0,
        "file" => 1,
        "instances" => 2,
        "ops" => 3,
        "read" => 4,
        "write" => 5,
        "watch" => 6,
        "mod" | "opening" | "face" => 7,
        other => panic!("store/sqlite/{other} has no floor: give it one in tests/it/tidy.rs"),
    }
}

#[test]
fn a_part_of_the_store_imports_no_higher_floor() {
    let floor = |house: &str, part: &str| match house {
        "store/" => store_floor(part),
        _ => sqlite_floor(part),
    };
    let sources = sources();
    let mut found = Vec::new();
    for (file, imported) in &imports(&sources) {
        for house in ["store/", "store/sqlite/"] {
            let Some(part) = file.strip_prefix(house) else {
                continue;
            };
            for target in imported.iter().filter_map(|name| name.strip_prefix(house)) {
                // The interface of all engines, which also gives names to what is below it.
                let is_interface = house == "store/" && target == "mod.rs";
                let (own, other) = (module(part), module(target));
                if !is_interface && floor(house, other) > floor(house, own) {
                    found.push(format!("src/{file} imports src/{house}{target}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What is of one engine stands behind the face of that engine: a second one is then a matter of adding files.
#[test]
fn nothing_above_the_engines_names_one() {
    let names = ["rusqlite", "SQLite", "sqlite", "Path", "PathBuf", "wal"];
    let floors = ["model", "store", "handler", "runtime"];
    problems(|source, found| {
        let name = source.name.as_str();
        if !floors.contains(&module(name)) || name.starts_with("store/sqlite/") {
            return;
        }
        for (number, line) in lines(source) {
            // The engines' own modules, and the kits of the suite.
            let is_door = line.contains("mod sqlite;") || line.contains("sqlite::kit::");
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if !is_door && let Some(word) = words.find(|word| names.contains(word)) {
                found.push(format!("src/{name}:{number} names {word}: {line}"));
            }
        }
    });
}

/// The files that each file names: by a path from the root of the crate, from its own module, or from the one around it.
fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let file_of = |path: &str| {
        // The longest beginning of the path that is a file: the rest are names in it.
        let words: Vec<&str> = path.split("::").collect();
        (1..=words.len()).rev().find_map(|count| {
            let base = words[..count].join("/");
            let names = [format!("{base}.rs"), format!("{base}/mod.rs")];
            sources
                .iter()
                .map(|source| source.name.as_str())
                .find(|name| names.iter().any(|other| other == name))
        })
    };
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        // `self` and `super` as the words before them: those of the file's own module, and of the one around it.
        let own_path = source.name.trim_end_matches(".rs").trim_end_matches("/mod");
        let own_path = own_path.replace('/', "::");
        let around = own_path.rsplit_once("::").map_or("", |(around, _)| around);
        let code: Vec<&str> = lines(source).map(|(_, line)| line.trim()).collect();
        // A statement may go over several lines, and a path stands for each name in its braces.
        let code = code.join(" ");
        let mut paths = Vec::new();
        let prefixes = [
            ("crate::", String::new()),
            ("use self::", format!("{own_path}::")),
            ("super::", format!("{around}::")),
        ];
        for (prefix, before) in &prefixes {
            let starts = code.split(prefix).skip(1);
            paths.extend(starts.flat_map(|rest| named(before, rest)));
        }
        for rest in code.split("pub use ").skip(1) {
            paths.extend(named(&format!("{own_path}::"), rest));
        }
        let files = paths.iter().filter_map(|path| file_of(path));
        let own = imports.entry(&source.name).or_default();
        own.extend(files.filter(|file| *file != source.name));
    }
    imports
}

/// The paths that the beginning of `rest` names, after `before`.
fn named(before: &str, rest: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
    let path: String = rest.chars().take_while(|&c| is_path(c)).collect();
    let after = &rest[path.len()..];
    let base = format!("{before}{}", path.trim_end_matches(':'));
    match after.strip_prefix('{').filter(|_| path.ends_with("::")) {
        Some(names) => names
            .split(['}', ';'])
            .next()
            .into_iter()
            .flat_map(|names| names.split(','))
            .flat_map(|name| named(&format!("{base}::"), name.trim()))
            .collect(),
        None => vec![base],
    }
}

#[test]
fn imports_are_found_in_groups_and_among_children() {
    let source = |name: &str, code: &str| Source {
        name: name.to_owned(),
        code: code.to_owned(),
    };
    let sources = [
        source(
            "a/mod.rs",
            "pub use child::Name;\nuse crate::b::{\n    c, d::Name,\n};",
        ),
        source("a/child.rs", "use super::Other;"),
        source("b/c.rs", ""),
        source("b/d.rs", "use crate::a::Other;"),
    ];
    let imports = imports(&sources);
    let of = |name: &str| imports[name].iter().copied().collect::<Vec<_>>();
    assert_eq!(of("a/mod.rs"), ["a/child.rs", "b/c.rs", "b/d.rs"]);
    assert_eq!(of("a/child.rs"), ["a/mod.rs"]);
    assert_eq!(of("b/d.rs"), ["a/mod.rs"]);
}

/// A circle of files can only be understood all at once.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let imports = imports(&sources);
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for imported in imports.get(file).into_iter().flatten().copied() {
                if reached.insert(imported) {
                    next.push(imported);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (*file, reached(file))).collect();
    let circles: BTreeSet<Vec<&str>> = reached
        .iter()
        .map(|(file, others)| {
            let comes_back = |other: &&&str| reached[**other].contains(file);
            others.iter().filter(comes_back).copied().collect()
        })
        .filter(|circle: &Vec<&str>| !circle.is_empty())
        // A text that is no id is an error, and an error may name a task.
        .filter(|circle| *circle != ["error.rs", "id.rs"])
        .collect();
    assert!(circles.is_empty(), "circles: {circles:#?}");
}

/// A state, a bit, the mark of a lane or a column that only has a number can be missed when the schema changes.
#[test]
fn sql_names_states_bits_and_columns() {
    let has_number_after = |line: &str, mark: &str| {
        line.split(mark).skip(1).any(|rest| {
            rest.trim_start_matches(['~', '(', ' '])
                .starts_with(char::is_numeric)
        })
    };
    problems(|source, found| {
        if module(&source.name) != "store" {
            return;
        }
        for (number, line) in lines(source) {
            let bare = [
                "state =",
                "state IN",
                "state /",
                "extras &",
                "extras |",
                "retired =",
                "retired >",
            ]
            .iter()
            .any(|mark| has_number_after(line, mark));
            // A statement of three columns or more is read as a type.
            let far = (2..30).any(|column| {
                line.contains(&format!("row.get({column})"))
                    || line.contains(&format!("(row, {column})"))
            });
            if bare || far {
                found.push(format!("src/{}:{number}: {line}", source.name));
            }
        }
    });
}

/// An ignored test is the part of a child process, and no other. Its parent, in the same file, runs it by name.
#[test]
fn every_ignored_test_is_played_by_its_parent() {
    fn walk(folder: &Path, played: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, played);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            // Put together, so that this line is not found.
            let mark = ["#[ign", "ore"].concat();
            for rest in text.split(mark.as_str()).skip(1) {
                let name = rest.split("fn ").nth(1).unwrap();
                let name = name.split('(').next().unwrap();
                let is_played = text.contains(&format!("part!({name})"));
                assert!(is_played, "{}: nothing runs {name}", path.display());
                *played += 1;
            }
        }
    }
    let mut played = 0;
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"),
        &mut played,
    );
    assert!(played > 20, "they are found");
}
