//! The rows of figures: a table for people, JSON lines for programs.

use serde::Serialize;

/// One figure beside its limit.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) setting: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// Bare rusqlite, or a bare wait, doing the same work at the same durability in the same run, unless the note says
    /// otherwise.
    pub(crate) limit: f64,
    /// Ours over the limit: the median of the pairs.
    pub(crate) ratio: Option<f64>,
    /// The quartiles of the ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quartiles: Option<(f64, f64)>,
    /// Processor microseconds per task, ours and the limit's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us: Option<(f64, f64)>,
    /// The target in words: "at least 0.85".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Whether the figure meets its target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
    /// What a reader must know to understand the figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Prints each row as soon as it is measured.
pub(crate) struct Report {
    json: bool,
    has_header: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            has_header: false,
        }
    }

    pub(crate) fn row(&mut self, row: &Row) {
        if self.json {
            println!(
                "{}",
                serde_json::to_string(row).expect("a row is plain data")
            );
            return;
        }
        if !std::mem::replace(&mut self.has_header, true) {
            println!(
                "{:<5} {:<32} {:>12} {:>12} {:<8} {:>6} {:>13} {:>15}  target",
                "", "setting", "ours", "limit", "unit", "ratio", "quartiles", "cpu µs/task"
            );
        }
        let ratio = row
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let quartiles = row
            .quartiles
            .map_or(String::new(), |(low, high)| format!("{low:.2} – {high:.2}"));
        let cpu = row.cpu_us.map_or(String::new(), |(ours, limit)| {
            format!("{ours:.1} / {limit:.1}")
        });
        let met = match row.met {
            Some(true) => ": met",
            Some(false) => ": missed",
            None => "",
        };
        println!(
            "{:<5} {:<32} {:>12.3} {:>12.3} {:<8} {:>6} {:>13} {:>15}  {}{met}",
            row.workload,
            row.setting,
            row.value,
            row.limit,
            row.unit,
            ratio,
            quartiles,
            cpu,
            row.target.as_deref().unwrap_or_default()
        );
        if let Some(note) = &row.note {
            self.note(note);
        }
    }

    /// A remark among the rows of a table; JSON has none.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            println!("      {text}");
        }
    }

    pub(crate) fn end(&self) {}
}
