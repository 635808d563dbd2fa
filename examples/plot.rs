//! Draws the picture in the README: the output of `cargo bench --bench load -- --json`, as bars relative to bare SQLite.
//!
//! `cargo run --example plot -- docs/benchmarks.jsonl docs/benchmarks.svg`. Without arguments it draws the figures in the
//! repository into a temporary folder, and checks the picture.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Deserialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TITLE: &str =
    "punctual, as a share of what bare SQLite does with the same rows at the same durability";
const LEGEND: &str = "bar: median; thin line: quartiles; orange mark: the least that is required";
const WIDTH: u32 = 840;
const ROW_HEIGHT: u32 = 26;
/// The height of the title, the scale and the legend.
const FRAME_HEIGHT: u32 = 100;
const LABEL_WIDTH: u32 = 240;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const BAR: RGBColor = RGBColor(150, 190, 230);
const REQUIRED: RGBColor = RGBColor(214, 96, 0);

/// The fields of a line that the picture uses.
#[derive(Deserialize)]
struct Row {
    workload: String,
    setting: String,
    unit: String,
    ratio: Option<f64>,
    quartiles: Option<(f64, f64)>,
    target: Option<String>,
}

impl Row {
    /// The length of the bar; `None` for rows that are no throughput, or are not compared with the full limit.
    fn share(&self) -> Option<f64> {
        let is_rate = matches!(self.unit.as_str(), "tasks/s" | "MB/s");
        let ends = |end| self.setting.ends_with(end);
        let is_beside_other = ends("lean limit") || ends("over W1") || self.workload == "W11";
        self.ratio.filter(|_| is_rate && !is_beside_other)
    }

    fn required(&self) -> Option<f64> {
        let least = self.target.as_ref()?.strip_prefix("at least ")?;
        least.parse().ok()
    }

    fn label(&self) -> String {
        let parts: Vec<&str> = self.setting.split(", ").collect();
        let what = match (self.workload.as_str(), &parts[..]) {
            ("W1", ["FULL"]) => "one thread, each durable",
            ("W1", ["NORMAL"]) => "one thread, crash-safe",
            ("W2", ["FULL"]) => "16 threads, each durable",
            ("W3", ["FULL", how]) if how.ends_with(" in one") => "in bulk, in one call",
            ("W3", ["FULL", how]) if how.ends_with(" by 1,000") => "in bulk, by 1,000",
            ("W4", ["FULL", _]) => "running what is due",
            ("W5", ["FULL"]) => "one thread, and running them",
            ("W5b", ["FULL"]) => "16 threads, and running them",
            ("W9", ["FULL", size, "as W2"]) => &format!("{size} each, 16 threads"),
            ("W9", ["FULL", size, "as W4"]) => &format!("{size} each, running"),
            _ => &self.setting,
        };
        format!("{} {what}", self.workload)
    }
}

/// The rows that have a bar, each with its length.
fn read(path: &Path) -> Result<Vec<(f64, Row)>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let rows: serde_json::Result<Vec<Row>> = text.lines().map(serde_json::from_str).collect();
    let bars = rows?
        .into_iter()
        .filter_map(|row| Some((row.share()?, row)));
    Ok(bars.collect())
}

fn draw(bars: &[(f64, Row)], path: &Path) -> Result<()> {
    let height = FRAME_HEIGHT + ROW_HEIGHT * bars.len() as u32;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let root = root.margin(8, 8, 8, 16).titled(TITLE, text(20))?;

    let longest = |(share, row): &(f64, Row)| row.quartiles.map_or(*share, |(_, high)| high);
    let end = bars.iter().map(longest).fold(1.0, f64::max) + 0.1;
    // Each row is one unit high. The first is on top, below the label of the line.
    let rows = bars.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .x_label_area_size(44)
        .y_label_area_size(LABEL_WIDTH)
        .build_cartesian_2d(0.0..end, rows..-0.7)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis();
    mesh.light_line_style(TRANSPARENT).bold_line_style(GRID);
    mesh.axis_style(INK).label_style(text(15));
    mesh.x_desc(LEGEND).draw()?;

    let area = chart.plotting_area();
    let line = |points: [(f64, f64); 2], color: RGBColor, width| {
        area.draw(&PathElement::new(points, color.stroke_width(width)))
    };
    let write = |words: String, at: (f64, f64), side, gap| {
        let style = text(16).pos(Pos::new(side, VPos::Center));
        area.draw(&(EmptyElement::at(at) + Text::new(words, (gap, 0), style)))
    };
    for (place, (share, row)) in bars.iter().enumerate() {
        let middle = place as f64 + 0.5;
        let (above, below) = (middle - 0.3, middle + 0.3);
        let bar = [(0.0, above), (*share, below)];
        area.draw(&Rectangle::new(bar, BAR.filled()))?;
        if let Some((low, high)) = row.quartiles {
            line([(low, middle), (high, middle)], INK, 1)?;
        }
        if let Some(at) = row.required() {
            line([(at, above), (at, below)], REQUIRED, 3)?;
        }
        write(row.label(), (0.0, middle), HPos::Right, -8)?;
        write(format!("{share:.2}"), (0.0, middle), HPos::Left, 6)?;
    }
    line([(1.0, 0.0), (1.0, rows)], INK, 1)?;
    write("bare SQLite".into(), (1.0, -0.35), HPos::Center, 0)?;
    Ok(root.present()?)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [figures, picture] => return draw(&read(figures.as_ref())?, picture.as_ref()),
        [] => {}
        _ => return Err("plot <figures.jsonl> <picture.svg>".into()),
    }
    let bars = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.jsonl"))?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("benchmarks.svg");
    draw(&bars, &path)?;
    let picture = fs::read_to_string(&path)?;
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    let drawn = picture.matches("fill=\"#96BEE6\"").count();
    assert!(drawn == bars.len() && drawn > 0, "{drawn} bars are drawn");
    println!("{drawn} bars, one for each row");
    Ok(())
}
