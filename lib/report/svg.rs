//! Two kinds of chart as inline SVG. Colours come from the classes in `style.css`, so that a chart
//! follows the page into dark mode.

use super::curves::Point;
use std::fmt::Write;

/// Text that is safe in HTML and SVG, in attributes too.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One line of a dot chart.
pub struct Dot {
    pub title: String,
    pub mean: f64,
    pub interval: Option<(f64, f64)>,
    /// The values that `mean` is the mean of, with their names.
    pub singles: Vec<(String, f64)>,
    /// The value in words, at the right.
    pub text: String,
}

const WIDTH: f64 = 960.0;

/// Dots with intervals on one axis of fractions, a line each, labelled at both ends. The axis
/// holds `range` whatever the values are.
pub fn dot_chart(label: &str, dots: &[Dot], range: &[f64]) -> String {
    let longest = dots.iter().map(|d| d.title.chars().count()).max();
    // Some 8 pixels a character; the rest of an absurdly long name runs under the chart.
    let left = (longest.unwrap_or(0) as f64 * 8.0 + 24.0).clamp(120.0, 400.0);
    let (right, line_height) = (800.0, 30.0);
    let ends = dots.iter().flat_map(|d| {
        let (low, high) = d.interval.unwrap_or((d.mean, d.mean));
        d.singles.iter().map(|s| s.1).chain([low, high])
    });
    let axis = Axis::around(ends.chain(range.iter().copied()), 6);
    let x = |value: f64| left + axis.at(value) * (right - left);
    let height = line_height * dots.len() as f64;
    let mut svg = open("dots", label, WIDTH, height + 26.0);
    for &tick in &axis.ticks {
        let x = x(tick);
        let _ = write!(
            svg,
            "<path class=grid d='M{x:.1} 0V{height}'/>\
             <text class=tick x={x:.1} y={:.1} text-anchor=middle>{}%</text>",
            height + 18.0,
            axis.number(tick * 100.0, 100.0),
        );
    }
    for (i, dot) in dots.iter().enumerate() {
        let y = line_height * (i as f64 + 0.5);
        let _ = write!(svg, "<text class=name x=0 y={:.1}>{}</text>", y + 4.5, escape(&dot.title));
        if let Some((low, high)) = dot.interval {
            let _ = write!(svg, "<path class=bar d='M{:.1} {y}H{:.1}'/>", x(low), x(high));
        }
        if dot.singles.len() > 1 {
            for (name, value) in &dot.singles {
                let _ = write!(
                    svg,
                    "<circle class=single cx={:.1} cy={y} r=3><title>{}</title></circle>",
                    x(*value),
                    escape(name)
                );
            }
        }
        let _ = write!(
            svg,
            "<circle class=dot cx={:.1} cy={y} r=5.5><title>{title}: {text}</title></circle>\
             <text class=value x={WIDTH} y={:.1} text-anchor=end>{text}</text>",
            x(dot.mean),
            y + 4.5,
            title = escape(&dot.title),
            text = escape(&dot.text),
        );
    }
    svg + "</svg>"
}

/// One line of a line chart: its colour class, its name, its points.
pub struct Line<'a> {
    pub class: &'static str,
    pub name: &'a str,
    pub points: Vec<Point>,
}

/// Curves over steps with a band from the lowest to the highest seed, named at their right ends.
/// The values axis holds `range` whatever the values are; `percent`: values are fractions.
pub fn line_chart(label: &str, lines: &[Line], range: &[f64], percent: bool) -> String {
    let (left, right, top, bottom) = (44.0, 360.0, 10.0, 150.0);
    let points = || lines.iter().flat_map(|l| &l.points);
    let values =
        Axis::around(points().flat_map(|p| [p.low, p.high]).chain(range.iter().copied()), 4);
    let steps = Axis::around(points().map(|p| p.step).chain([0.0]), 4);
    let last = points().map(|p| p.step).fold(1.0, f64::max);
    let x = |step: f64| left + step / last * (right - left);
    let y = |value: f64| bottom - values.at(value) * (bottom - top);
    let mut svg = open("lines", label, 470.0, 176.0);
    for &tick in &values.ticks {
        let (y, scale, unit) =
            (y(tick), if percent { 100.0 } else { 1.0 }, if percent { "%" } else { "" });
        let _ = write!(
            svg,
            "<path class=grid d='M{left} {y:.1}H{right}'/>\
             <text class=tick x={} y={:.1} text-anchor=end>{}{unit}</text>",
            left - 7.0,
            y + 4.0,
            values.number(tick * scale, scale),
        );
    }
    for &tick in steps.ticks.iter().filter(|&&t| t <= last) {
        let _ = write!(
            svg,
            "<text class=tick x={:.1} y={} text-anchor=middle>{}</text>",
            x(tick),
            bottom + 18.0,
            count(tick),
        );
    }
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
    let labels = spread_out(&heights, 14.0, top, bottom);
    for ((line, (x, y)), label) in lines.iter().zip(ends).zip(labels) {
        let _ = write!(
            svg,
            "<path class='leader {}' d='M{x:.1} {y:.1}L{:.1} {label:.1}h9'/>\
             <text class=end x={:.1} y={:.1}>{}</text>",
            line.class,
            right + 11.0,
            right + 25.0,
            label + 4.0,
            escape(line.name),
        );
    }
    svg + "</svg>"
}

fn open(class: &str, label: &str, width: f64, height: f64) -> String {
    format!(
        "<svg class={class} viewBox='0 0 {width} {height}' role=img aria-label=\"{}\">",
        escape(label)
    )
}

/// A range with round ticks that holds all values.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// `most`: about so many intervals between ticks.
    fn around(values: impl Iterator<Item = f64>, most: usize) -> Axis {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        // One value alone still needs an axis around it.
        let span = (high - low).max(1e-2);
        let rough = span / most as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * power)
            .into_iter()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * power);
        let (first, last) =
            ((low / step).floor(), (high / step).ceil().max((low / step).floor() + 1.0));
        Axis {
            low: first * step,
            high: last * step,
            step,
            ticks: (first as i64..=last as i64).map(|i| i as f64 * step).collect(),
        }
    }

    /// Position of a value, 0 at the low end and 1 at the high end.
    fn at(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick with as many decimals as the distance between ticks needs.
    fn number(&self, tick: f64, scale: f64) -> String {
        let decimals = (-(self.step * scale).log10().floor()).clamp(0.0, 4.0) as usize;
        format!("{tick:.decimals$}")
    }
}

/// `500`, `20k`, `1.5M`
fn count(steps: f64) -> String {
    match steps {
        s if s >= 1e6 => format!("{}M", s / 1e6),
        s if s >= 1e3 => format!("{}k", s / 1e3),
        s => format!("{s}"),
    }
}

/// Moves positions as little as their order allows until `gap` lies between neighbours.
fn spread_out(positions: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| positions[a].total_cmp(&positions[b]));
    let mut moved = positions.to_vec();
    let mut floor = low;
    for &i in &order {
        moved[i] = moved[i].max(floor);
        floor = moved[i] + gap;
    }
    let mut ceiling = high;
    for &i in order.iter().rev() {
        moved[i] = moved[i].min(ceiling);
        ceiling = moved[i] - gap;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        let axis = Axis::around([0.731, 0.858].into_iter(), 6);
        assert_eq!(axis.ticks.len(), 5);
        assert!((axis.low - 0.70).abs() < 1e-9 && (axis.high - 0.90).abs() < 1e-9);
        assert_eq!(axis.number(75.0, 100.0), "75");
        let flat = Axis::around([0.5].into_iter(), 6);
        assert!(flat.low <= 0.5 && flat.high > 0.5);
    }

    #[test]
    fn labels_keep_their_order_and_distance() {
        let moved = spread_out(&[50.0, 51.0, 49.0, 100.0], 10.0, 0.0, 100.0);
        assert_eq!(moved, [59.0, 69.0, 49.0, 100.0]);
        assert_eq!(spread_out(&[99.0, 100.0], 10.0, 0.0, 100.0), [90.0, 100.0]);
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
