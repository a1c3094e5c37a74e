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
    /// For a forward pass that leaves nothing behind.
    pub fn for_inference(sizes: &Sizes) -> Slots {
        Slots::new(sizes, false)
    }

    /// For a forward and a backward pass.
    pub fn for_training(sizes: &Sizes) -> Slots {
        Slots::new(sizes, true)
    }

    /// Moments: stem, pool, three for each unit, the pre-logits, and the same way back.
    fn new(sizes: &Sizes, backward: bool) -> Slots {
        let count = sizes.units.len();
        let first = |unit: usize| 2 + 3 * unit;
        let head = backward.then(|| first(count));
        // The unit's three backward steps, and the stem's.
        let back = |unit: usize, step: usize| head.map(|h| h + 1 + 3 * (count - 1 - unit) + step);
        let end = head.map(|h| h + 1 + 3 * count);
        let mut plan = Plan::default();
        let mut add = |len: usize, life: RangeInclusive<usize>| plan.add(len, life);
        let pooled = usize::from(sizes.stem > 0);
        let stem = add(sizes.stem, 0..=end.unwrap_or(1));
        let y0 = add(sizes.y0, pooled..=end.unwrap_or(first(0) + 2));
        let mut activations = Vec::new();
        for (i, u) in sizes.units.iter().enumerate() {
            let at = first(i);
            let z1 = add(u.z1, at..=back(i, 2).unwrap_or(at + 1));
            let z2 = add(u.z2, at + 1..=back(i, 1).unwrap_or(at + 2));
            // The shortcut's convolution writes it first.
            let from = if u.projects { at } else { at + 2 };
            let y = add(u.y, from..=back(i, 0).unwrap_or(first(i + 1) + 2));
            activations.push([z1, z2, y]);
        }
        let mut gradients = Vec::new();
        if let (Some(head), Some(end)) = (head, end) {
            // The gradient of a unit's output goes to its first convolution or past it.
            let last_use = |unit: Option<usize>| match unit {
                None => Some(end),
                Some(i) if sizes.units[i].projects => back(i, 2),
                Some(0) => Some(end),
                Some(i) => back(i - 1, 0),
            };
            for (i, u) in sizes.units.iter().enumerate() {
                let input = if i == 0 {
                    sizes.y0
                } else {
                    sizes.units[i - 1].y
                };
                let lives = [0, 1, 2].map(|step| back(i, step).unwrap_or(end));
                let g3 = add(u.z2, lives[0]..=lives[1]);
                let g2 = add(u.z1, lives[1]..=lives[2]);
                let until = last_use(i.checked_sub(1)).unwrap_or(end);
                gradients.push([g3, g2, add(input, lives[2]..=until)]);
            }
            let output = sizes.units.last().map_or(sizes.y0, |u| u.y);
            let until = last_use(count.checked_sub(1)).unwrap_or(end);
            gradients.push([add(output, head..=until), add(sizes.stem, end..=end), 0]);
        }
        let (slots, total) = plan.place();
        let mut all = Slots {
            stem: slots[stem],
            y0: slots[y0],
            total,
            ..Slots::default()
        };
        for (i, [z1, z2, y]) in activations.into_iter().enumerate() {
            let mut unit = UnitSlots {
                z1: slots[z1],
                z2: slots[z2],
                y: slots[y],
                ..UnitSlots::default()
            };
            if head.is_some() {
                let [g3, g2, input] = gradients[i].map(|g| slots[g]);
                (unit.g3, unit.g2, unit.input_gradient) = (g3, g2, input);
            }
            all.units.push(unit);
        }
        if let Some([output, stem, _]) = gradients.last() {
            all.gradient = slots[*output];
            all.stem_gradient = slots[*stem];
        }
        all
    }
}
