//! The network's layers as training and inference compute them: groups of convolutions, the pool, and the
//! sizes of their outputs. Weights and norms are elsewhere.

use super::geometry::Group;
use super::packing::Way;
use super::pool::Pool;
use super::tiling;
use crate::network::buffers::{Sizes, UnitSizes};
use crate::network::layout::{Conv, Layout, Unit};

/// All layers, for images of one size.
pub struct Layers {
    pub layout: Layout,
    pub stem: Group,
    /// The max pool after the stem, if there is one.
    pub pool: Option<Pool>,
    pub units: Vec<UnitLayers>,
    /// Values per image; pixels of the first unit's input.
    pub image_values: usize,
    pub y0_pixels: usize,
    pub sizes: Sizes,
}

/// The convolutions of one bottleneck unit.
pub struct UnitLayers {
    /// conv1 and the shortcut, if there is one; conv2; conv3.
    pub groups: [Group; 3],
    /// Pixels per image before and after the stride.
    pub pixels: (usize, usize),
}

/// Convolutions that read the same input, and its (height, width).
type Sized<'a> = (Vec<&'a Conv>, (usize, usize));

/// The groups of a unit whose input is of (height, width).
fn groups(unit: &Unit, (h, w): (usize, usize)) -> [Sized<'_>; 3] {
    let [c1, c2, c3] = &unit.convs;
    let first = std::iter::once(c1).chain(&unit.shortcut).collect();
    let output = (c2.output(h), c2.output(w));
    [(first, (h, w)), (vec![c2], (h, w)), (vec![c3], output)]
}

/// The pool after the stem, if there is one, and the size of the first unit's input.
fn after_stem(layout: &Layout, (height, width): (usize, usize)) -> (Option<Pool>, (usize, usize)) {
    let size = (layout.stem.output(height), layout.stem.output(width));
    let pool = layout.pool.then(|| Pool::new(size));
    let size = pool.as_ref().map_or(size, |pool| pool.output);
    (pool, size)
}

/// Whether the engine can compute on images of (height, width): one of them, through a layer, must not have
/// more values than 32-bit offsets reach.
pub fn is_addressable(layout: &Layout, size: (usize, usize)) -> bool {
    let mut input = after_stem(layout, size).1;
    let units = layout.units.iter().flat_map(|unit| {
        let groups = groups(unit, input);
        input = groups[2].1;
        groups
    });
    std::iter::once((vec![&layout.stem], size))
        .chain(units)
        .all(|(convs, size)| tiling::is_addressable(&convs, size))
}

impl UnitLayers {
    /// For input of (height, width).
    fn new(unit: &Unit, (h, w): (usize, usize), pairs: bool) -> UnitLayers {
        let groups = groups(unit, (h, w));
        let (oh, ow) = groups[2].1;
        UnitLayers {
            groups: groups.map(|(convs, size)| Group::new(&convs, size, pairs)),
            pixels: (h * w, oh * ow),
        }
    }

    fn sizes(&self, unit: &Unit) -> UnitSizes {
        let [c1, c2, c3] = &unit.convs;
        UnitSizes {
            z1: self.pixels.0 * c1.outputs,
            z2: self.pixels.1 * c2.outputs,
            y: self.pixels.1 * c3.outputs,
            projects: unit.shortcut.is_some(),
        }
    }
}

impl Layers {
    /// For images of (height, width). `pairs`: values are multiplied in pairs if possible.
    pub fn new(layout: &Layout, (height, width): (usize, usize), pairs: bool) -> Layers {
        let stem = &layout.stem;
        let (pool, (mut h, mut w)) = after_stem(layout, (height, width));
        let stem_values = stem.output(height) * stem.output(width) * stem.outputs;
        let y0_pixels = h * w;
        let units = layout.units.iter().map(|unit| {
            let layers = UnitLayers::new(unit, (h, w), pairs);
            let conv = &unit.convs[1];
            (h, w) = (conv.output(h), conv.output(w));
            layers
        });
        let units: Vec<_> = units.collect();
        let unit_sizes = units.iter().zip(&layout.units).map(|(layers, unit)| layers.sizes(unit));
        Layers {
            stem: Group::new(&[stem], (height, width), pairs),
            image_values: height * width * stem.inputs,
            y0_pixels,
            sizes: Sizes {
                stem: if pool.is_some() { stem_values } else { 0 },
                y0: y0_pixels * stem.outputs,
                units: unit_sizes.collect(),
            },
            pool,
            units,
            layout: layout.clone(),
        }
    }

    /// The stem, then the three groups of each unit.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.stem).chain(self.units.iter().flat_map(|u| &u.groups))
    }

    /// Words of the packed weights of the largest group.
    pub fn packed_words(&self) -> usize {
        let words = self
            .groups()
            .flat_map(|g| [Way::Forward, Way::Backward].map(|way| g.packed_words(way)));
        words.max().unwrap_or(0)
    }
}
