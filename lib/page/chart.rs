//! Charts as inline SVG. Colours come from the classes in `page.css`, so a chart follows the theme of the
//! page. An element with a `<title>` shows its values under the pointer; `page.js` steps through these
//! elements in a chart of the class `chart`.

use super::axis::{Axis, count, spread_out};
use super::frame::escape;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One line of a dot chart.
pub struct Dot {
    pub title: String,
    pub mean: f64,
    pub interval: Option<(f64, f64)>,
    /// The values of which `mean` is the mean, with their names.
    pub singles: Vec<(String, f64)>,
    /// The value as text, on the right.
    pub text: String,
}

/// Dots with intervals on one axis of fractions. One line per dot: name, dot, value. The axis contains
/// `range` for any values. Positions are shares of the width, so text keeps its size on any screen.
pub fn dot_chart(label: &str, dots: &[Dot], range: &[f64]) -> String {
    let ends = dots.iter().flat_map(|d| {
        let (low, high) = d.interval.unwrap_or((d.mean, d.mean));
        d.singles.iter().map(|s| s.1).chain([low, high])
    });
    let axis = Axis::around(ends.chain(range.iter().copied()), 6);
    let x = |value: f64| axis.at(value) * 100.0;
    let line = |at: f64| format!("<line class=grid x1='{at:.2}%' x2='{at:.2}%' y1=0 y2=30 />");
    let grid: String = axis.ticks.iter().map(|&tick| line(x(tick))).collect();
    let mut html = format!("<div class=dots role=group aria-label=\"{}\">\n", escape(label));
    for dot in dots {
        let (title, text) = (escape(&dot.title), escape(&dot.text));
        let _ = write!(html, "<div class=name>{title}</div><svg class=track>{grid}");
        if let Some((low, high)) = dot.interval {
            let (low, high) = (x(low), x(high));
            let _ = write!(html, "<line class=bar x1='{low:.2}%' x2='{high:.2}%' y1=15 y2=15 />");
        }
        if dot.singles.len() > 1 {
            for (name, value) in &dot.singles {
                let (x, name) = (x(*value), escape(name));
                let _ = write!(
                    html,
                    "<circle class=single cx='{x:.2}%' cy=15 r=3><title>{name}</title></circle>"
                );
            }
        }
        let _ = writeln!(
            html,
            "<circle class=dot cx='{:.2}%' cy=15 r=5.5><title>{title}: {text}</title></circle></svg>\
             <div class=value>{text}</div>",
            x(dot.mean),
        );
    }
    let _ = write!(html, "<div class=name></div><svg class='track ticks' aria-hidden=true>");
    for &tick in &axis.ticks {
        let number = axis.number(tick * 100.0, 100.0);
        let _ = write!(
            html,
            "<text class=tick x='{:.2}%' y=14 text-anchor=middle>{number}%</text>",
            x(tick)
        );
    }
    html + "</svg><div class=value></div>\n</div>"
}

/// Mean over several neighbouring steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub step: f64,
    /// Mean, lowest and highest over the seeds.
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// One line of a line chart: its colour class, its name, its points.
pub struct Line<'a> {
    pub class: &'static str,
    pub name: &'a str,
    pub points: Vec<Point>,
}

/// The area in which the values of a line chart are drawn.
const PLOT: Plot = Plot { left: 44.0, right: 360.0, top: 10.0, bottom: 150.0 };

struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Plot {
    fn y(&self, share: f64) -> f64 {
        self.bottom - share * (self.bottom - self.top)
    }

    fn x(&self, share: f64) -> f64 {
        self.left + share * (self.right - self.left)
    }

    /// Lines and numbers of the vertical axis.
    fn upright(&self, axis: &Axis, percent: bool) -> String {
        let (scale, unit) = if percent { (100.0, "%") } else { (1.0, "") };
        let tick = |&tick: &f64| {
            let y = self.y(axis.at(tick));
            format!(
                "<path class=grid d='M{} {y:.1}H{}'/>\
                 <text class=tick x={} y={:.1} text-anchor=end>{}{unit}</text>",
                self.left,
                self.right,
                self.left - 7.0,
                y + 4.0,
                axis.number(tick * scale, scale),
            )
        };
        axis.ticks.iter().map(tick).collect()
    }

    /// A number under the horizontal axis.
    fn level(&self, x: f64, text: &str) -> String {
        let y = self.bottom + 18.0;
        format!("<text class=tick x={x:.1} y={y} text-anchor=middle>{text}</text>")
    }
}

/// Curves over steps, with a band from the lowest to the highest seed and names at the right ends. The axis
/// of values contains `range` for any values. `percent`: values are fractions.
pub fn line_chart(label: &str, lines: &[Line], range: &[f64], percent: bool) -> String {
    let points = || lines.iter().flat_map(|l| &l.points);
    let values =
        Axis::around(points().flat_map(|p| [p.low, p.high]).chain(range.iter().copied()), 4);
    let steps = Axis::around(points().map(|p| p.step).chain([0.0]), 4);
    let last = points().map(|p| p.step).fold(1.0, f64::max);
    let x = |step: f64| PLOT.x(step / last);
    let y = |value: f64| PLOT.y(values.at(value));
    let mut svg = open("lines", label, 470.0, 176.0) + &PLOT.upright(&values, percent);
    for &tick in steps.ticks.iter().filter(|&&t| t <= last) {
        svg += &PLOT.level(x(tick), &count(tick));
    }
    svg += &hits(lines, x, percent);
    for line in lines {
        let at = |value: fn(&Point) -> f64| {
            line.points.iter().map(move |p| format!("{:.1} {:.1}", x(p.step), y(value(p))))
        };
        if line.points.iter().any(|p| p.low < p.high) {
            let outline: Vec<String> = at(|p| p.high).chain(at(|p| p.low).rev()).collect();
            let _ = write!(svg, "<path class='band {}' d='M{}Z'/>", line.class, outline.join("L"));
        }
        let path: Vec<String> = at(|p| p.mean).collect();
        let _ = write!(svg, "<path class='line {}' d='M{}'/>", line.class, path.join("L"));
    }
    let ends: Vec<(f64, f64)> =
        lines.iter().filter_map(|l| l.points.last()).map(|p| (x(p.step), y(p.mean))).collect();
    let heights: Vec<f64> = ends.iter().map(|end| end.1).collect();
    let labels = spread_out(&heights, 14.0, PLOT.top, PLOT.bottom);
    for ((line, (x, y)), label) in lines.iter().zip(ends).zip(labels) {
        let _ = write!(
            svg,
            "<path class='leader {}' d='M{x:.1} {y:.1}L{:.1} {label:.1}h9'/>\
             <text class=end x={:.1} y={:.1}>{}</text>",
            line.class,
            PLOT.right + 11.0,
            PLOT.right + 25.0,
            label + 4.0,
            escape(line.name),
        );
    }
    svg + "</svg>"
}

/// The text under the pointer at each step: the values of all lines that have a point there.
fn hits(lines: &[Line], x: impl Fn(f64) -> f64, percent: bool) -> String {
    let number = |value: f64| match percent {
        true => format!("{:.1}%", value * 100.0),
        false => format!("{value:.4}"),
    };
    let mut at: BTreeMap<u64, (f64, String)> = BTreeMap::new();
    for line in lines {
        for p in &line.points {
            // Steps are not negative, so their bits sort as their values do.
            let (_, words) = at
                .entry(p.step.to_bits())
                .or_insert_with(|| (x(p.step), format!("step {:.0}", p.step)));
            let _ = write!(words, "\n{} {}", escape(line.name), number(p.mean));
            if p.low < p.high {
                let _ = write!(words, " ({} to {})", number(p.low), number(p.high));
            }
        }
    }
    let hit = |(x, words): &(f64, String)| {
        let (top, bottom) = (PLOT.top, PLOT.bottom);
        format!("<path class=hit d='M{x:.1} {top}V{bottom}'><title>{words}</title></path>")
    };
    at.values().map(hit).collect()
}

/// A bar over a range of an axis from 0 to 1.
pub struct Bar {
    pub from: f64,
    pub to: f64,
    /// A fraction.
    pub height: f64,
    /// The meaning of the bar, as text.
    pub title: String,
}

/// Bars over fractions from 0 to 1, with a vertical axis of fractions. `diagonal`: the axis goes to 1, and
/// a line shows where both fractions are equal.
pub fn bars(label: &str, bars: &[Bar], diagonal: bool) -> String {
    let plot = Plot { left: 44.0, right: 290.0, top: 10.0, bottom: 170.0 };
    let highest = if diagonal { 1.0 } else { 0.0 };
    let values = Axis::around(bars.iter().map(|b| b.height).chain([0.0, highest]), 4);
    let mut svg = open("bars", label, 300.0, 196.0) + &plot.upright(&values, true);
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg += &plot.level(plot.x(tick), &format!("{:.0}%", tick * 100.0));
    }
    if diagonal {
        let (from, to) = (plot.y(values.at(0.0)), plot.y(values.at(1.0)));
        let _ = write!(
            svg,
            "<path class=diagonal d='M{:.1} {from:.1}L{:.1} {to:.1}'/>",
            plot.x(0.0),
            plot.x(1.0)
        );
    }
    for bar in bars {
        let (left, right) = (plot.x(bar.from) + 0.5, plot.x(bar.to) - 0.5);
        let top = plot.y(values.at(bar.height)).min(plot.bottom - 0.5);
        let _ = write!(
            svg,
            "<path class=column d='M{left:.1} {}V{top:.1}H{right:.1}V{0}Z'>\
             <title>{}</title></path>",
            plot.bottom,
            escape(&bar.title),
        );
    }
    svg + "</svg>"
}

/// A dot over a count.
pub struct Place {
    pub count: f64,
    /// A fraction.
    pub height: f64,
    pub title: String,
    /// The name beside the dot, if it has one.
    pub name: Option<String>,
}

/// Dots over counts, on a logarithmic axis.
pub fn scatter(label: &str, places: &[Place]) -> String {
    let plot = Plot { left: 44.0, right: 440.0, top: 22.0, bottom: 210.0 };
    let values = Axis::around(places.iter().map(|p| p.height), 5);
    let logs = || places.iter().map(|p| p.count.ln());
    let (low, high) = (logs().fold(f64::INFINITY, f64::min), logs().fold(0.0, f64::max));
    // With some margin, or names would be cut.
    let x = |count: f64| plot.x(0.08 + 0.84 * (count.ln() - low) / (high - low).max(1e-9));
    let mut svg = open("scatter", label, 470.0, 238.0) + &plot.upright(&values, true);
    let ticks: BTreeMap<u64, f64> = places.iter().map(|p| (p.count.to_bits(), p.count)).collect();
    for tick in ticks.into_values() {
        svg += &plot.level(x(tick), &count(tick));
    }
    for place in places {
        let (x, y) = (x(place.count), plot.y(values.at(place.height)));
        let _ = write!(
            svg,
            "<circle class=dot cx={x:.1} cy={y:.1} r=5><title>{}</title></circle>",
            escape(&place.title)
        );
        if let Some(name) = &place.name {
            let left = x < (plot.left + plot.right) / 2.0;
            let (x, anchor) = if left { (x + 9.0, "start") } else { (x - 9.0, "end") };
            let _ = write!(
                svg,
                "<text class=end x={x:.1} y={:.1} text-anchor={anchor}>{}</text>",
                y - 8.0,
                escape(name)
            );
        }
    }
    svg + "</svg>"
}

fn open(class: &str, label: &str, width: f64, height: f64) -> String {
    format!(
        "<svg class='chart {class}' viewBox='0 0 {width} {height}' role=img aria-label=\"{}\">",
        escape(label)
    )
}
