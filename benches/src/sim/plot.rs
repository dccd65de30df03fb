//! One run as a picture: bars of mean latency, time to first token and hit rate, with the ideal hit rate as a line.
//!
//! SVG written by hand: three columns of rectangles and text need no library and no fonts.

use std::fmt::Write;

use super::report::Row;

const ROW: f64 = 22.0;
const TOP: f64 = 48.0;
const NAMES: f64 = 150.0;
const COLUMN: f64 = 230.0;
/// The longest bar; the rest of the column is for its figure.
const BAR: f64 = 165.0;

/// The rows of one run as an SVG document.
pub fn svg(title: &str, rows: &[Row]) -> String {
    let (width, height) = (NAMES + 3.0 * COLUMN, TOP + ROW * rows.len() as f64 + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, 8.0, 18.0, title);
    for (index, row) in rows.iter().enumerate() {
        text(&mut svg, 8.0, baseline(index), &row.policy);
    }
    let values = |value: fn(&Row) -> f64| rows.iter().map(value).collect::<Vec<_>>();
    let figure = |value: f64| format!("{value:.2} s");
    column(
        &mut svg,
        0,
        "mean latency",
        &values(|row| row.e2e_mean_s),
        figure,
    );
    let figure = |value: f64| format!("{:.0} ms", value * 1e3);
    column(
        &mut svg,
        1,
        "mean time to first token",
        &values(|row| row.ttft_mean_s),
        figure,
    );
    // The last bar is the ideal itself, drawn as a line: it sets the scale.
    let ideal = rows.first().map_or(0.0, |row| row.ideal_hit_rate);
    let mut hits = values(|row| row.hit_rate);
    hits.push(ideal);
    let figure = |value: f64| format!("{:.1} %", value * 100.0);
    let head = format!("cached prompt tokens (ideal {})", figure(ideal));
    let scale = column(&mut svg, 2, &head, &hits, figure);
    let x = left(2) + ideal * scale;
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"crimson\"/>\n</svg>",
        height - 10.0
    );
    svg
}

fn left(column: usize) -> f64 {
    NAMES + COLUMN * column as f64
}

fn baseline(index: usize) -> f64 {
    TOP + ROW * index as f64 + 14.0
}

fn text(svg: &mut String, x: f64, y: f64, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

/// Draws all values but a value beyond the rows; gives the scale.
fn column(
    svg: &mut String,
    column: usize,
    head: &str,
    values: &[f64],
    figure: impl Fn(f64) -> String,
) -> f64 {
    let most = values.iter().copied().fold(0.0, f64::max);
    let scale = if most > 0.0 { BAR / most } else { 0.0 };
    let rows = if column == 2 {
        values.len() - 1
    } else {
        values.len()
    };
    text(svg, left(column), TOP - 8.0, head);
    for (index, &value) in values.iter().take(rows).enumerate() {
        let (x, y) = (left(column), TOP + ROW * index as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"steelblue\"/>",
            value * scale,
            ROW - 4.0
        );
        text(
            svg,
            x + value * scale + 4.0,
            baseline(index),
            &figure(value),
        );
    }
    scale
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::world::Outcome;

    #[test]
    fn a_picture_has_a_bar_per_figure_and_one_line() {
        let outcome = Outcome {
            records: Vec::new(),
            busy: Vec::new(),
            preemptions: 0,
        };
        let rows = ["a<b", "c"].map(|name| Row::of(name, &outcome, 0.9, Duration::ZERO));
        let svg = svg("A & B", &rows);
        assert_eq!(svg.matches("<rect x").count(), 6);
        assert_eq!(svg.matches("<line").count(), 1);
        assert!(svg.contains("A &amp; B") && svg.contains("a&lt;b"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
