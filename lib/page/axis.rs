//! The axes of charts.

/// A range with round ticks that contains all values.
pub struct Axis {
    low: f64,
    high: f64,
    step: f64,
    pub ticks: Vec<f64>,
}

impl Axis {
    /// `most`: about the largest number of intervals between ticks.
    pub fn around(values: impl Iterator<Item = f64>, most: usize) -> Axis {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        // A single value needs an axis around it too.
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
    pub fn at(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick with as many decimals as the distance between ticks needs.
    pub fn number(&self, tick: f64, scale: f64) -> String {
        let decimals = (-(self.step * scale).log10().floor()).clamp(0.0, 4.0) as usize;
        format!("{tick:.decimals$}")
    }
}

/// `500`, `20k`, `1.5M`
pub fn count(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => format!("{n}"),
    }
}

/// Moves positions by as little as possible, in order, until neighbours are at least `gap` apart.
pub fn spread_out(positions: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
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
}
