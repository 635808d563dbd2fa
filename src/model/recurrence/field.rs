//! The fields of a cron expression, and what is wrong with a text of one.

use croner::parser::{CronParser, Seconds, Year};

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A field, in the order of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Year,
}

impl Field {
    pub(super) const ALL: [Self; 7] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Month,
        Self::Weekday,
        Self::Year,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of month",
            Self::Month => "month",
            Self::Weekday => "day of week",
            Self::Year => "year",
        }
    }

    /// Whether the field may contain this run of letters, in capitals.
    fn allows_letters(self, letters: &str) -> bool {
        match self {
            Self::Day => matches!(letters, "L" | "W" | "LW"),
            Self::Month => MONTHS.contains(&letters),
            Self::Weekday => {
                let name = letters.strip_suffix('L').unwrap_or(letters);
                name.is_empty() || WEEKDAYS.contains(&name)
            }
            Self::Second | Self::Minute | Self::Hour | Self::Year => false,
        }
    }

    /// Whether the field may contain this sign.
    fn allows_sign(self, sign: char) -> bool {
        match sign {
            '*' | ',' | '-' | '/' => true,
            '?' => matches!(self, Self::Day | Self::Weekday),
            '#' => self == Self::Weekday,
            _ => sign.is_ascii_digit(),
        }
    }

    /// What is wrong with a text of this field, if anything: the byte inside it, and why.
    pub(super) fn fault(self, text: &str) -> Option<(usize, String)> {
        let upper = text.to_ascii_uppercase();
        let mut rest = upper.as_str();
        while let Some(first) = rest.chars().next() {
            let at = upper.len() - rest.len();
            if first.is_ascii_alphabetic() {
                let end = rest.find(|c: char| !c.is_ascii_alphabetic());
                let (letters, after) = rest.split_at(end.unwrap_or(rest.len()));
                if !self.allows_letters(letters) {
                    return Some((
                        at,
                        format!("`{}` is not allowed", &text[at..][..letters.len()]),
                    ));
                }
                rest = after;
            } else if self.allows_sign(first) {
                rest = &rest[first.len_utf8()..];
            } else {
                return Some((at, format!("`{first}` is not allowed")));
            }
        }
        let mut at = 0;
        for item in upper.split(',') {
            let wrong = if item.is_empty() {
                Some("an item of the list is empty".to_owned())
            } else if item.contains('?') && upper != "?" {
                Some("`?` must stand alone".to_owned())
            } else {
                self.parse(item)
            };
            if let Some(wrong) = wrong {
                return Some((at, wrong));
            }
            at += item.len() + 1;
        }
        self.parse(&upper).map(|wrong| (0, wrong))
    }

    /// The lowest and the highest number; `None`: those of the parser.
    fn bounds(self) -> Option<(u32, u32)> {
        match self {
            Self::Second | Self::Minute => Some((0, 59)),
            Self::Hour => Some((0, 23)),
            Self::Day => Some((1, 31)),
            Self::Month => Some((1, 12)),
            Self::Weekday => Some((0, 7)),
            Self::Year => None,
        }
    }

    /// What the parser says against one item of this field.
    fn parse(self, item: &str) -> Option<String> {
        let mut fields = ["0", "0", "0", "*", "*", "*", "*"];
        fields[self as usize] = item;
        let parsed = parser(false).parse(&fields.join(" "));
        let bounds = self.bounds();
        let step = item.split_once('/').and_then(|(_, step)| step.parse().ok());
        let Err(error) = parsed else {
            let (low, high) = bounds?;
            let is_long = step.is_some_and(|step: u32| step > high - low + 1);
            return is_long.then(|| format!("`{item}`: the step is longer than the field"));
        };
        let text = error.to_string();
        let text = text
            .rsplit_once(": ")
            .map_or(text.as_str(), |(_, text)| text);
        let mut text = text.trim_end_matches('.').to_owned();
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        if let Some((low, high)) = bounds {
            // The parser does not say which.
            match text.as_str() {
                "number out of bounds" => {
                    text = format!("a number is not between {low} and {high}")
                }
                "range out of bounds" => {
                    text = format!(
                        "it is no range from a lower to a higher number between {low} and {high}"
                    );
                }
                _ => {}
            }
        }
        Some(format!("`{item}`: {text}"))
    }
}

pub(super) fn parser(days_and_weekdays: bool) -> CronParser {
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Optional)
        .dom_and_dow(days_and_weekdays)
        .build()
}
