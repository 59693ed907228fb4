//! Plots as inline SVG. Colours are placeholders that become CSS variables of the page, so that plots follow its light or dark
//! theme; and as a picture of their own.

use std::ops::Range;

use anyhow::anyhow;
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::*,
};

use super::{html, summary::duration};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 320;

/// Decades of a latency axis, in microseconds.
const LATENCY_US_LIMITS: Range<f64> = 1.0..600e6;

/// A colour of the page, by the variable that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Of text.
    Ink,
    /// Of axes.
    Grid,
    /// Of the line that matters most.
    First,
    /// Of another line.
    Second,
    /// Of another.
    Third,
    /// Of another.
    Fourth,
    /// Of another.
    Fifth,
}

impl Colour {
    const ALL: [Self; 7] = [Self::Ink, Self::Grid, Self::First, Self::Second, Self::Third, Self::Fourth, Self::Fifth];

    /// The page's variable.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Ink => "var(--ink)",
            Self::Grid => "var(--grid)",
            Self::First => "var(--first)",
            Self::Second => "var(--second)",
            Self::Third => "var(--third)",
            Self::Fourth => "var(--fourth)",
            Self::Fifth => "var(--fifth)",
        }
    }

    fn placeholder(self) -> RGBColor {
        RGBColor(1, 2, 10 + self as u8)
    }
}

/// A line of a plot.
pub struct Line {
    /// As the legend says.
    pub name: &'static str,
    /// Of the line.
    pub colour: Colour,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// A plot of a picture.
pub struct Panel {
    /// Above it.
    pub caption: String,
    /// Their names and colours, for the legend.
    pub legend: Vec<(&'static str, Colour)>,
    /// What one of the functions here drew.
    pub svg: String,
}

/// Height of a caption.
const CAPTION: u32 = 34;

/// Plots below each other as one SVG that stands for itself, light or dark as the reader likes it.
#[must_use]
pub fn picture(title: &str, panels: &[Panel]) -> String {
    let height = CAPTION + panels.len() as u32 * (CAPTION + HEIGHT);
    let colours = html::STYLE.split("* {").next().unwrap_or_default();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\">\n<style>{colours}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n\
         <text x=\"12\" y=\"23\" font-size=\"18\" fill=\"var(--ink)\">{}</text>\n",
        html::escape(title)
    );
    let mut top = CAPTION;
    for panel in panels {
        let baseline = top + 22;
        out += &format!(
            "<text x=\"12\" y=\"{baseline}\" font-size=\"14\" fill=\"var(--ink)\">{}",
            html::escape(&panel.caption)
        );
        for (name, colour) in &panel.legend {
            out += &format!("<tspan dx=\"18\" fill=\"{}\">━ {}</tspan>", colour.variable(), html::escape(name));
        }
        let plot = panel.svg.replacen("<svg ", &format!("<svg y=\"{}\" ", top + CAPTION), 1);
        out += &format!("</text>\n{plot}\n");
        top += CAPTION + HEIGHT;
    }
    out + "</svg>\n"
}

/// Latency (logarithmic) over the percentile (logarithmic in what is left above it).
pub fn percentiles(lines: &[Line]) -> anyhow::Result<String> {
    let last = lines.iter().flat_map(|line| &line.points).map(|&(nines, _)| nines).fold(2.0, f64::max);
    draw(lines, 0.0..last, latency_range(lines).log_scale(), &percentile_label, &latency_label)
}

/// Where a quantile stands on the axis of [`percentiles`]: the number of its nines.
pub fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

/// Latency (logarithmic) over seconds.
pub fn latency_timeline(lines: &[Line]) -> anyhow::Result<String> {
    draw(lines, seconds_range(lines), latency_range(lines).log_scale(), &seconds_label, &latency_label)
}

/// A rate, from 0, over seconds.
pub fn rate_timeline(lines: &[Line]) -> anyhow::Result<String> {
    let highest = lines.iter().flat_map(|line| &line.points).map(|&(_, rate)| rate).fold(1.0, f64::max);
    draw(lines, seconds_range(lines), 0.0..highest * 1.1, &seconds_label, &|rate| format!("{rate:.0}/s"))
}

/// Megabytes, or any other number from 0, over seconds.
pub fn timeline(lines: &[Line], unit: &str) -> anyhow::Result<String> {
    let highest = lines.iter().flat_map(|line| &line.points).map(|&(_, value)| value).fold(0.1, f64::max);
    let digits = if highest < 10.0 { 1 } else { 0 };
    draw(lines, seconds_range(lines), 0.0..highest * 1.1, &seconds_label, &|value| format!("{value:.digits$} {unit}"))
}

/// A number from 0, over another one that is no time: connections, members.
pub fn over_counts(lines: &[Line], unit: &str) -> anyhow::Result<String> {
    let highest = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|line| &line.points).map(of).fold(0.1, f64::max);
    let (last, highest) = (highest(|point| point.0), highest(|point| point.1));
    let digits = if highest < 1.0 { 2 } else { usize::from(highest < 10.0) };
    draw(lines, 0.0..last, 0.0..highest * 1.1, &count_label, &|value| format!("{value:.digits$} {unit}"))
}

fn draw<Y>(
    lines: &[Line],
    x: Range<f64>,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> anyhow::Result<String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    draw_on(&SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area(), lines, x, y, x_label, y_label)
        .map_err(|error| anyhow!("can't draw a plot: {error}"))?;
    for colour in Colour::ALL {
        let RGBColor(red, green, blue) = colour.placeholder();
        svg = svg.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), colour.variable());
    }
    Ok(svg)
}

fn draw_on<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    x: Range<f64>,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(28)
        .x_label_area_size(28)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)
        .map_err(|error| error.to_string())?;
    let (ink, grid) = (Colour::Ink.placeholder(), Colour::Grid.placeholder());
    chart
        .configure_mesh()
        .axis_style(grid)
        .bold_line_style(grid)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 14).into_font().color(&ink))
        .y_labels(6)
        .x_label_formatter(x_label)
        .y_label_formatter(y_label)
        .draw()
        .map_err(|error| error.to_string())?;
    for line in lines {
        let series = LineSeries::new(line.points.clone(), line.colour.placeholder().stroke_width(2));
        chart.draw_series(series).map_err(|error| error.to_string())?;
    }
    Ok(area.present().map_err(|error| error.to_string())?)
}

fn seconds_range(lines: &[Line]) -> Range<f64> {
    let last = lines.iter().flat_map(|line| &line.points).map(|&(second, _)| second).fold(1.0, f64::max);
    0.0..last
}

fn latency_range(lines: &[Line]) -> Range<f64> {
    let values = || lines.iter().flat_map(|line| &line.points).map(|&(_, value)| value).filter(|&value| value > 0.0);
    let lowest = values().fold(LATENCY_US_LIMITS.end, f64::min).max(LATENCY_US_LIMITS.start);
    let highest = values().fold(lowest * 10.0, f64::max);
    lowest * 0.8..highest * 1.25
}

fn seconds_label(second: &f64) -> String {
    if (second - second.round()).abs() > 0.01 { String::new() } else { format!("{second:.0} s") }
}

fn count_label(count: &f64) -> String {
    html::grouped(count.round() as u64)
}

fn latency_label(microseconds: &f64) -> String {
    duration(*microseconds as u64)
}

fn percentile_label(nines: &f64) -> String {
    if (nines - nines.round()).abs() > 0.01 {
        return String::new();
    }
    match nines.round() as u32 {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more as usize - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_labelled_by_their_nines() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 5.0, 2.5].map(|nines| percentile_label(&nines)),
            ["0 %", "90 %", "99 %", "99.9 %", "99.999 %", ""]
        );
        assert!((nines(0.99) - 2.0).abs() < 1e-9 && nines(1.0) < 9.1);
    }

    #[test]
    fn plots_hold_their_lines_in_the_colours_of_the_page() {
        let lines =
            [Line { name: "a", colour: Colour::Third, points: vec![(0.0, 300.0), (1.0, 900.0), (3.0, 20_000.0)] }];
        let plots = [percentiles(&lines), latency_timeline(&lines), rate_timeline(&lines), timeline(&lines, "MiB")];
        for svg in plots.into_iter().chain([over_counts(&lines, "ms")]).map(Result::unwrap) {
            assert!(svg.contains("stroke=\"var(--third)\"") && svg.contains("var(--grid)"), "{svg}");
            assert!(!svg.contains("#0102"), "{svg}");
        }
    }

    #[test]
    fn a_picture_holds_its_plots_and_the_colours_that_they_name() {
        let line = Line { name: "a < b", colour: Colour::Second, points: vec![(0.0, 3.0), (1.0, 9.0)] };
        let svg = rate_timeline(std::slice::from_ref(&line)).unwrap();
        let panel = || Panel { caption: "rate".into(), legend: vec![(line.name, line.colour)], svg: svg.clone() };
        let picture = picture("x & y", &[panel(), panel()]);
        assert_eq!((picture.matches("<svg ").count(), picture.matches("</svg>").count()), (3, 3));
        assert!(picture.contains("x &amp; y") && picture.contains("a &lt; b") && picture.contains("--second: #"));
        assert!(picture.contains("<svg y=\"68\"") && picture.contains(&format!("<svg y=\"{}\"", 102 + HEIGHT)));
    }

    #[test]
    fn nothing_to_draw_is_no_failure() {
        for plot in [percentiles, latency_timeline, rate_timeline] {
            plot(&[Line { name: "a", colour: Colour::First, points: Vec::new() }]).unwrap();
        }
    }
}
