//! When each activation and each gradient is needed, and so where it lies.

use super::arena::{Plan, Slot};
use std::ops::RangeInclusive;

/// Values an image of one bottleneck unit's buffers, and whether its shortcut is a convolution.
#[derive(Debug, Clone, Copy)]
pub struct UnitSizes {
    /// Outputs of conv1, conv2 and of the unit.
    pub z1: usize,
    pub z2: usize,
    pub y: usize,
    pub projects: bool,
}

/// Values an image of all buffers.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// The stem's output where a pool follows, else 0; the first unit's input.
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
}

/// Where all buffers lie.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    pub stem: Slot,
    pub stem_gradient: Slot,
    pub y0: Slot,
    pub units: Vec<UnitSlots>,
    /// Gradient of the last output.
    pub gradient: Slot,
    /// Values an image of all of them.
    pub total: usize,
}

impl Slots {
    /// For a forward and a backward pass. Moments: stem, pool, three for each unit, the pre-logits,
    /// and the same way back.
    pub fn new(sizes: &Sizes) -> Slots {
        let count = sizes.units.len();
        let first = |unit: usize| 2 + 3 * unit;
        let head = first(count);
        // The unit's three backward steps, and the stem's.
        let back = |unit: usize, step: usize| head + 1 + 3 * (count - 1 - unit) + step;
        let end = head + 1 + 3 * count;
        let mut plan = Plan::default();
        let mut add = |len: usize, life: RangeInclusive<usize>| plan.add(len, life);
        let pooled = usize::from(sizes.stem > 0);
        let stem = add(sizes.stem, 0..=end);
        let y0 = add(sizes.y0, pooled..=end);
        let mut activations = Vec::new();
        for (i, u) in sizes.units.iter().enumerate() {
            let at = first(i);
            let z1 = add(u.z1, at..=back(i, 2));
            let z2 = add(u.z2, at + 1..=back(i, 1));
            // The shortcut's convolution writes it first.
            let from = if u.projects { at } else { at + 2 };
            let y = add(u.y, from..=back(i, 0));
            activations.push([z1, z2, y]);
        }
        let mut gradients = Vec::new();
        // The gradient of a unit's output goes to its first convolution or past it.
        let last_use = |unit: Option<usize>| match unit {
            Some(i) if sizes.units[i].projects => back(i, 2),
            None | Some(0) => end,
            Some(i) => back(i - 1, 0),
        };
        for (i, u) in sizes.units.iter().enumerate() {
            let input = match i {
                0 => sizes.y0,
                _ => sizes.units[i - 1].y,
            };
            let lives = [0, 1, 2].map(|step| back(i, step));
            let g3 = add(u.z2, lives[0]..=lives[1]);
            let g2 = add(u.z1, lives[1]..=lives[2]);
            let until = last_use(i.checked_sub(1));
            gradients.push([g3, g2, add(input, lives[2]..=until)]);
        }
        let output = sizes.units.last().map_or(sizes.y0, |u| u.y);
        let output = add(output, head..=last_use(count.checked_sub(1)));
        let stem_gradient = add(sizes.stem, end..=end);
        let (slots, total) = plan.place();
        let mut all = Slots {
            stem: slots[stem],
            y0: slots[y0],
            total,
            units: Vec::new(),
            stem_gradient: slots[stem_gradient],
            gradient: slots[output],
        };
        for ([z1, z2, y], [g3, g2, input]) in activations.into_iter().zip(gradients) {
            all.units.push(UnitSlots {
                z1: slots[z1],
                z2: slots[z2],
                y: slots[y],
                g3: slots[g3],
                g2: slots[g2],
                input_gradient: slots[input],
            });
        }
        all
    }
}
