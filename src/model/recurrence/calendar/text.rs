//! The lines of a calendar rule: names, parameters, values, and the times in them. A fault is named with its line and column.

use chrono::{Datelike, NaiveDateTime};

use crate::error::{Error, Result};
use crate::model::recurrence::calendar::civil::instant;
use crate::model::recurrence::zone::Zone;
use crate::time::Timestamp;

/// A property, with where it stands.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// From 1. That of the first line, if it goes over several.
    number: usize,
    /// In capitals.
    pub(super) name: String,
    /// Names in capitals, and values without quotes.
    parameters: Vec<(String, &'a str)>,
    pub(super) value: Part<'a>,
}

/// A part of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    /// From 1, in the line without folds.
    pub(super) column: usize,
}

impl<'a> Part<'a> {
    /// What stands between separators.
    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Part<'a>> {
        let mut column = self.column;
        self.text.split(separator).map(move |text| {
            let part = Part { text, column };
            column += text.len() + 1;
            part
        })
    }

    /// What stands before and after the first separator.
    pub(super) fn split_once(self, separator: char) -> Option<(Part<'a>, Part<'a>)> {
        let (before, after) = self.text.split_once(separator)?;
        let column = self.column + before.len() + 1;
        let before = Part {
            text: before,
            ..self
        };
        Some((
            before,
            Part {
                text: after,
                column,
            },
        ))
    }
}

/// The lines of a text without its folds: a line that begins with a space or a tab continues the one before it. Each has the
/// number it began at. Empty lines are left out.
///
/// # Errors
///
/// `Invalid` if there is a character that is not printable ASCII.
pub(super) fn unfold(text: &str) -> Result<Vec<(usize, String)>> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let number = index + 1;
        let rest = line.strip_prefix([' ', '\t']);
        if let Some(wrong) = rest.unwrap_or(line).chars().find(|c| !is_printable(*c)) {
            return Err(invalid(format!("line {number}: {wrong:?} is not allowed")));
        }
        match (rest, lines.last_mut()) {
            (Some(rest), Some((_, line))) => line.push_str(rest),
            (Some(_), None) => {
                return Err(invalid(format!(
                    "line {number} begins with a space, and continues no line"
                )));
            }
            (None, _) if line.is_empty() => {}
            (None, _) => lines.push((number, line.to_owned())),
        }
    }
    Ok(lines)
}

fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the calendar rule: {why}"))
}

impl<'a> Line<'a> {
    /// # Errors
    ///
    /// `Invalid` if it is not `NAME;PARAMETER=VALUE:VALUE`.
    pub(super) fn read(number: usize, text: &'a str) -> Result<Self> {
        let mut is_quoted = false;
        let mut ends = Vec::new();
        let mut colon = None;
        for (index, c) in text.char_indices() {
            match c {
                '"' => is_quoted = !is_quoted,
                ';' if !is_quoted => ends.push(index),
                ':' if !is_quoted => {
                    colon = Some(index);
                    break;
                }
                _ => {}
            }
        }
        let Some(colon) = colon else {
            return Err(invalid(format!(
                "line {number}: no colon ends the name of a property"
            )));
        };
        ends.push(colon);
        let mut line = Self {
            number,
            name: text[..ends[0]].to_ascii_uppercase(),
            parameters: Vec::new(),
            value: Part {
                text: &text[colon + 1..],
                column: colon + 2,
            },
        };
        for pair in ends.windows(2) {
            let part = Part {
                text: &text[pair[0] + 1..pair[1]],
                column: pair[0] + 2,
            };
            let Some((name, value)) = part.split_once('=') else {
                return Err(line.fault(part.column, "a parameter has no value"));
            };
            let quoted = value.text.strip_prefix('"');
            let value = quoted.and_then(|value| value.strip_suffix('"'));
            line.parameters.push((
                name.text.to_ascii_uppercase(),
                value.unwrap_or(part.text.split_at(name.text.len() + 1).1),
            ));
        }
        Ok(line)
    }

    /// What is wrong at a column.
    pub(super) fn fault(&self, column: usize, why: impl std::fmt::Display) -> Error {
        let Self { number, name, .. } = self;
        invalid(format!("line {number}, column {column}, {name}: {why}"))
    }

    /// What is wrong with the line.
    pub(super) fn whole_fault(&self, why: impl std::fmt::Display) -> Error {
        let Self { number, name, .. } = self;
        invalid(format!("line {number}, {name}: {why}"))
    }

    /// # Errors
    ///
    /// `Invalid` if it has parameters.
    pub(super) fn without_parameters(&self) -> Result<()> {
        match self.parameters.first() {
            Some((name, _)) => Err(self.whole_fault(format!("the parameter {name} is not read"))),
            None => Ok(()),
        }
    }

    /// The zone that its times are in; `None`: each ends with `Z`.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such zone, or if the values are no times.
    pub(super) fn zone(&self) -> Result<Option<Zone>> {
        let mut zone = None;
        for (name, value) in &self.parameters {
            match name.as_str() {
                "TZID" if zone.is_none() => {
                    let named = Zone::named(value);
                    zone = Some(named.map_err(|error| self.whole_fault(error))?);
                }
                "VALUE" if value.eq_ignore_ascii_case("DATE-TIME") => {}
                "VALUE" => {
                    return Err(self.whole_fault(format!(
                        "{value} is not read, only DATE-TIME: a slot is an instant"
                    )));
                }
                _ => {
                    return Err(self.whole_fault(format!("the parameter {name} is not read here")));
                }
            }
        }
        Ok(zone)
    }

    /// A time of a value: `20260131T093000`, with a `Z` exactly if the line names no zone. The result is civil time, in UTC if
    /// the line names no zone.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is none, or outside 1900 to 9999.
    pub(super) fn civil(&self, part: Part<'_>, zone: Option<&Zone>) -> Result<NaiveDateTime> {
        let fault = |why: &str| self.fault(part.column, format!("`{}`{why}", part.text));
        let (text, is_utc) = match part.text.strip_suffix(['Z', 'z']) {
            Some(text) => (text, true),
            None => (part.text, false),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let civil = match text.split_once(['T', 't']) {
            Some((date, time)) if date.len() == 8 && time.len() == 6 => {
                let is_number = is_digits(date) && is_digits(time);
                let upper = format!("{date}T{time}");
                NaiveDateTime::parse_from_str(&upper, "%Y%m%dT%H%M%S")
                    .ok()
                    // A leap second is no time of its own.
                    .filter(|_| is_number && &time[4..] != "60")
            }
            None if text.len() == 8 && is_digits(text) => {
                return Err(fault(" is a date: a slot is an instant, and needs a time"));
            }
            _ => None,
        };
        let civil = civil.ok_or_else(|| fault(" is no time such as 20260131T093000Z"))?;
        if !(1900..=9999).contains(&civil.year()) {
            return Err(fault(" is outside the years 1900 to 9999"));
        }
        match (is_utc, zone) {
            (true, None) | (false, Some(_)) => Ok(civil),
            (true, Some(_)) => Err(fault(" is UTC, and the line names a zone")),
            (false, None) => Err(fault(
                " is in no time zone: end it with Z or, except for UNTIL, give a TZID",
            )),
        }
    }

    /// The instants of a list of times.
    ///
    /// # Errors
    ///
    /// `Invalid` if one cannot be read.
    pub(super) fn instants(&self) -> Result<Vec<Timestamp>> {
        let zone = self.zone()?;
        let parts = self.value.split(',');
        let civil = parts.map(|part| self.civil(part, zone.as_ref()));
        let in_zone = zone.clone().unwrap_or_else(Zone::utc);
        civil
            .map(|civil| civil.map(|civil| instant(&in_zone, civil)))
            .collect()
    }
}
