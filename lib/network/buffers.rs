//! When each activation and each gradient is needed, and so its place in memory.

use super::slots::{Requests, Slot};

/// Values per image of one bottleneck unit's buffers, and whether its shortcut is a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitSizes {
    /// Outputs of conv1, of conv2 and of the unit.
    pub z1: usize,
    pub z2: usize,
    pub y: usize,
    pub projects: bool,
}

/// Values per image of each buffer.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// The stem's output if a pool follows, else 0; the first unit's input.
    pub stem: usize,
    pub y0: usize,
    pub units: Vec<UnitSizes>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct UnitSlots {
    pub z1: Slot,
    pub z2: Slot,
    pub y: Slot,
    /// Gradients behind the norms of z2 and z1, and of the unit's input.
    pub g3: Slot,
    pub g2: Slot,
    pub input_gradient: Slot,
    /// Tangents of z1, z2 and y; without a projection, that of y is in the place of the input's.
    pub t1: Slot,
    pub t2: Slot,
    pub ty: Slot,
}

/// The places of all buffers.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    pub stem: Slot,
    pub stem_gradient: Slot,
    pub y0: Slot,
    /// Tangents of the stem's output if a pool follows, and of the first unit's input.
    pub stem_tangent: Slot,
    pub y0_tangent: Slot,
    pub units: Vec<UnitSlots>,
    /// Gradient of the last output.
    pub gradient: Slot,
    /// Values per image of all buffers together.
    pub total: usize,
}

/// The moments of a forward and a backward pass over this many units. In order: the stem, the pool, three
/// per unit, the pre-logits, then the same backward.
#[derive(Clone, Copy)]
struct Timeline {
    units: usize,
}

impl Timeline {
    /// The first of a unit's three moments.
    fn unit(self, unit: usize) -> usize {
        2 + 3 * unit
    }

    /// The moment of a unit's tangent: its output is there. After the last unit, that of the pre-logits'.
    fn tangent(self, unit: usize) -> usize {
        (self.unit(unit) + 2).min(self.pre_logits())
    }

    fn pre_logits(self) -> usize {
        self.unit(self.units)
    }

    /// One of a unit's three moments in the backward pass.
    fn back(self, unit: usize, step: usize) -> usize {
        self.pre_logits() + 1 + 3 * (self.units - 1 - unit) + step
    }

    /// The moment of the stem in the backward pass.
    fn end(self) -> usize {
        self.pre_logits() + 1 + 3 * self.units
    }
}

/// Requests three buffers of a unit.
type Requested = fn(&mut Requests, &Sizes, Timeline, usize) -> [usize; 3];

impl Slots {
    /// For a forward and a backward pass, without and with the tangent beside the first one.
    pub fn without_and_with_tangents(sizes: &Sizes) -> [Slots; 2] {
        [false, true].map(|tangents| Slots::new(sizes, tangents))
    }

    fn new(sizes: &Sizes, with_tangents: bool) -> Slots {
        let timeline = Timeline { units: sizes.units.len() };
        let end = timeline.end();
        let mut requests = Requests::default();
        let pooled = usize::from(sizes.stem > 0);
        let stem = requests.add(sizes.stem, 0..=end);
        let y0 = requests.add(sizes.y0, pooled..=end);
        let units = 0..sizes.units.len();
        let mut of_units = |requested: Requested, sizes: &Sizes| -> Vec<[usize; 3]> {
            units.clone().map(|i| requested(&mut requests, sizes, timeline, i)).collect()
        };
        let activations = of_units(activations, sizes);
        let gradients = of_units(gradients, sizes);
        let none =
            Sizes { units: vec![UnitSizes::default(); sizes.units.len()], ..Sizes::default() };
        let of_tangents = if with_tangents { sizes } else { &none };
        let tangents = of_units(tangents, of_tangents);
        let y0_tangent = last_tangent(of_tangents, timeline, 0);
        let y0_tangent = requests.add(of_tangents.y0, pooled..=y0_tangent);
        let stem_tangent = requests.add(of_tangents.stem, pooled..=pooled);
        let output = sizes.units.last().map_or(sizes.y0, |u| u.y);
        let last_use = last_use(sizes, timeline, sizes.units.len().checked_sub(1));
        let gradient = requests.add(output, timeline.pre_logits()..=last_use);
        let stem_gradient = requests.add(sizes.stem, end..=end);
        let (slots, total) = requests.place();
        let mut tangent = slots[y0_tangent];
        let units = activations.into_iter().zip(gradients).zip(tangents).zip(&sizes.units);
        let units = units.map(|(((activations, gradients), tangents), unit)| {
            let [z1, z2, y] = activations.map(|request| slots[request]);
            let [g3, g2, input_gradient] = gradients.map(|request| slots[request]);
            let [t1, t2, ty] = tangents.map(|request| slots[request]);
            if unit.projects {
                tangent = ty;
            }
            UnitSlots { z1, z2, y, g3, g2, input_gradient, t1, t2, ty: tangent }
        });
        Slots {
            stem: slots[stem],
            stem_gradient: slots[stem_gradient],
            y0: slots[y0],
            stem_tangent: slots[stem_tangent],
            y0_tangent: slots[y0_tangent],
            units: units.collect(),
            gradient: slots[gradient],
            total,
        }
    }
}

/// Requests z1, z2 and y of a unit, each until its own backward step.
fn activations(
    requests: &mut Requests,
    sizes: &Sizes,
    timeline: Timeline,
    unit: usize,
) -> [usize; 3] {
    let u = &sizes.units[unit];
    let at = timeline.unit(unit);
    // The shortcut's convolution writes the output first.
    let from = if u.projects { at } else { at + 2 };
    [
        requests.add(u.z1, at..=timeline.back(unit, 2)),
        requests.add(u.z2, at + 1..=timeline.back(unit, 1)),
        requests.add(u.y, from..=timeline.back(unit, 0)),
    ]
}

/// Requests the tangents of z1, z2 and y of a unit.
fn tangents(requests: &mut Requests, sizes: &Sizes, timeline: Timeline, unit: usize) -> [usize; 3] {
    let u = &sizes.units[unit];
    let at = timeline.tangent(unit);
    let y = if u.projects { u.y } else { 0 };
    [
        requests.add(u.z1, at..=at),
        requests.add(u.z2, at..=at),
        requests.add(y, at..=last_tangent(sizes, timeline, unit + 1)),
    ]
}

/// The last moment of the tangent that is the input of a unit: a unit that does not project leaves that of its own
/// output in the place.
fn last_tangent(sizes: &Sizes, timeline: Timeline, unit: usize) -> usize {
    let projects = sizes.units.iter().skip(unit).position(|u| u.projects);
    timeline.tangent(projects.map_or(sizes.units.len(), |more| unit + more))
}

/// Requests the gradients behind the norms of z2 and z1 of a unit, and of its input.
fn gradients(
    requests: &mut Requests,
    sizes: &Sizes,
    timeline: Timeline,
    unit: usize,
) -> [usize; 3] {
    let u = &sizes.units[unit];
    let input = unit.checked_sub(1).map_or(sizes.y0, |before| sizes.units[before].y);
    let [third, second, first] = [0, 1, 2].map(|step| timeline.back(unit, step));
    [
        requests.add(u.z2, third..=second),
        requests.add(u.z1, second..=first),
        requests.add(input, first..=last_use(sizes, timeline, unit.checked_sub(1))),
    ]
}

/// The last use of the gradient of a unit's output, which goes to the first convolution of the unit or past
/// it; `None`: of the stem's output.
fn last_use(sizes: &Sizes, timeline: Timeline, unit: Option<usize>) -> usize {
    match unit {
        Some(i) if sizes.units[i].projects => timeline.back(i, 2),
        None | Some(0) => timeline.end(),
        Some(i) => timeline.back(i - 1, 0),
    }
}
