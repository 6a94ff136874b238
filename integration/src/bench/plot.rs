//! Bars: CPU an operation and throughput of each candidate in each scenario, as one SVG.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Comparison, Measure, Row};

const WIDTH: f64 = 980.0;
const LABEL_WIDTH: f64 = 150.0;
const PANEL_WIDTH: f64 = 300.0;
const PANEL_GAP: f64 = 100.0;
const ROW_HEIGHT: f64 = 18.0;
const HEAD_HEIGHT: f64 = 34.0;

type Figure = fn(&Measure) -> f64;

/// Two panels side by side: what is good when short, and what is good when long.
const PANELS: [(&str, Figure); 2] = [
    ("CPU µs an operation", |measure| measure.cpu_us),
    ("operations a second", |measure| measure.throughput),
];

pub(super) fn svg(comparisons: &[Comparison]) -> Result<String> {
    let mut body = String::new();
    let mut y = 10.0;
    for comparison in comparisons {
        y += HEAD_HEIGHT;
        writeln!(body, r#"<text x="10" y="{y}" class="title">{}</text>"#, escaped(&comparison.title))?;
        for scenario in &comparison.scenarios {
            y += HEAD_HEIGHT;
            writeln!(body, r#"<text x="10" y="{y}" class="name">{}</text>"#, escaped(&scenario.name))?;
            for (index, (panel, _)) in PANELS.iter().enumerate() {
                writeln!(body, r#"<text x="{}" y="{y}" class="axis">{panel}</text>"#, panel_x(index))?;
            }
            y += 6.0;
            for row in scenario.rows.iter().filter(|row| row.failure.is_none()) {
                bars(&mut body, y, row, &scenario.rows, row.candidate == comparison.ours)?;
                y += ROW_HEIGHT;
            }
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\">\n\
         <style>.title{{font-size:16px;font-weight:bold}}.name{{font-size:13px;font-weight:bold}}\
         .axis,.row{{font-size:12px;fill:#444}}.peer{{fill:#9db4c8}}.ours{{fill:#2b6ca3}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        y + HEAD_HEIGHT
    ))
}

fn panel_x(index: usize) -> f64 {
    if index == 0 { LABEL_WIDTH } else { LABEL_WIDTH + PANEL_WIDTH + PANEL_GAP }
}

fn bars(body: &mut String, y: f64, row: &Row, all: &[Row], ours: bool) -> Result<()> {
    let text_y = y + ROW_HEIGHT - 6.0;
    writeln!(body, r#"<text x="20" y="{text_y}" class="row">{}</text>"#, escaped(&row.candidate))?;
    let class = if ours { "ours" } else { "peer" };
    for (index, (_, figure)) in PANELS.iter().enumerate() {
        let value = figure(&row.median);
        let longest = all.iter().map(|row| figure(&row.median)).fold(f64::MIN_POSITIVE, f64::max);
        if value <= 0.0 {
            continue;
        }
        let (x, length, thick) = (panel_x(index), PANEL_WIDTH * value / longest, ROW_HEIGHT - 4.0);
        writeln!(body, r#"<rect x="{x}" y="{y}" width="{length:.1}" height="{thick}" class="{class}"/>"#)?;
        let digits = if value < 100.0 { 2 } else { 0 };
        writeln!(
            body,
            r#"<text x="{:.1}" y="{text_y}" class="row">{value:.digits$}</text>"#,
            x + length + 5.0
        )?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
