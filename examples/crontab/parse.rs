//! The text of a crontab: what each line means, or at which column it is wrong.

use std::collections::BTreeMap;
use std::fmt;

use chrono_tz::Tz;
use punctual::Rule;

use crate::run::Job;
use crate::words::{Wrong, is_blank, quoted, skip_blanks, split};

/// The lines of a crontab that run something.
pub(crate) struct Crontab {
    pub(crate) entries: Vec<Entry>,
    /// What the user should know of lines that have no effect here.
    pub(crate) notices: Vec<String>,
}

/// A line that runs a command.
pub(crate) struct Entry {
    /// Without the blanks around it.
    pub(crate) text: String,
    pub(crate) when: When,
    pub(crate) zone: Tz,
    pub(crate) job: Job,
}

pub(crate) enum When {
    Reboot,
    At(Rule),
}

/// What is wrong with a line. Lines and columns count from 1, columns in characters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// Reads a crontab whose times are those of `zone` until a line `CRON_TZ` names another. All bad lines are found, not only the
/// first.
pub(crate) fn parse(text: &str, zone: Tz) -> Result<Crontab, Vec<Fault>> {
    let mut reader = Reader {
        crontab: Crontab {
            entries: Vec::new(),
            notices: Vec::new(),
        },
        zone,
        env: BTreeMap::new(),
    };
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Err(Wrong(at, what)) = reader.line(index + 1, line) {
            faults.push(Fault {
                line: index + 1,
                column: line[..at].chars().count() + 1,
                what,
            });
        }
    }
    match faults.is_empty() {
        true => Ok(reader.crontab),
        false => Err(faults),
    }
}

/// What has been read, and what holds for the lines that follow.
struct Reader {
    crontab: Crontab,
    zone: Tz,
    env: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Wrong> {
        let start = skip_blanks(line, 0);
        if line[start..].is_empty() || line[start..].starts_with('#') {
            return Ok(());
        }
        if let Some(at) = line.find(['\0', char::REPLACEMENT_CHARACTER]) {
            let what = "a zero byte, or one that is no UTF-8";
            return Err(Wrong(at, what.to_owned()));
        }
        match line[start..].chars().next() {
            Some(first) if first.is_alphabetic() || "_\"'=".contains(first) => {
                self.variable(number, line, start)
            }
            _ => self.entry(line, start),
        }
    }

    /// `NAME = value`, each with quotes or without.
    fn variable(&mut self, number: usize, line: &str, start: usize) -> Result<(), Wrong> {
        let what = "neither a time nor NAME=value";
        let (name, end) = quoted(line, start, |c| c == '=' || is_blank(c))?;
        let equals = skip_blanks(line, end);
        if name.is_empty() || !line[equals..].starts_with('=') {
            return Err(Wrong(start, what.to_owned()));
        }
        let from = skip_blanks(line, equals + 1);
        let (value, end) = quoted(line, from, |_| false)?;
        let rest = skip_blanks(line, end);
        if rest < line.len() {
            return Err(Wrong(rest, "text after the value".to_owned()));
        }
        match name {
            "CRON_TZ" => {
                let zone = value.parse::<Tz>();
                self.zone =
                    zone.map_err(|_| Wrong(from, format!("there is no time zone {value:?}")))?;
            }
            "MAILTO" | "MAILFROM" => self.crontab.notices.push(format!(
                "line {number}: {name} is ignored: no mail is sent, the output is kept"
            )),
            _ => {
                self.env.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Five fields or a nickname, and a command.
    fn entry(&mut self, line: &str, start: usize) -> Result<(), Wrong> {
        let is_nickname = line[start..].starts_with('@');
        let mut end = start;
        for count in 0..if is_nickname { 1 } else { 5 } {
            let from = skip_blanks(line, end);
            if from == line.len() {
                let what = format!("it ends after {count} of five fields");
                return Err(Wrong(from, what));
            }
            end = line[from..].find(is_blank).map_or(line.len(), |n| from + n);
        }
        let expression = &line[start..end];
        let when = match expression.eq_ignore_ascii_case("@reboot") {
            true => When::Reboot,
            false => When::At(self.rule(expression, start)?),
        };
        let from = skip_blanks(line, end);
        let (command, input) = split(&line[from..]);
        if command.trim().is_empty() {
            return Err(Wrong(from, "the command is missing".to_owned()));
        }
        self.crontab.entries.push(Entry {
            text: line.trim().to_owned(),
            when,
            zone: self.zone,
            job: Job {
                command,
                input,
                env: self.env.clone(),
            },
        });
        Ok(())
    }

    /// The rule of an expression that stands at `start` of its line.
    fn rule(&self, expression: &str, start: usize) -> Result<Rule, Wrong> {
        let rule = Rule::cron(expression).and_then(|rule| rule.time_zone(self.zone.name()));
        rule.map_err(|error| {
            let text = error.to_string();
            let about = format!("the cron expression {expression:?}: ");
            let what = text.strip_prefix(&about).unwrap_or(&text);
            // Of a wrong field the error says the column in the expression.
            let (column, what) = what
                .strip_prefix("column ")
                .and_then(|what| what.split_once(", "))
                .and_then(|(column, what)| Some((column.parse().ok()?, what)))
                .unwrap_or((1, what));
            let before = expression.char_indices().nth(column - 1);
            Wrong(start + before.map_or(0, |(at, _)| at), what.to_owned())
        })
    }
}
