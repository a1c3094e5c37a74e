//! The network's layers as training and inference compute them: groups of convolutions, the pool, and the
//! sizes of their outputs. Weights and norms are elsewhere.

use super::buffers::{Sizes, UnitSizes};
use super::geometry::Group;
use super::packing::Way;
use super::pool::Pool;
use crate::network::layout::{Layout, Unit};

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

impl UnitLayers {
    /// For input of (height, width).
    fn new(unit: &Unit, (h, w): (usize, usize), pairs: bool) -> UnitLayers {
        let [c1, c2, c3] = &unit.convs;
        let (oh, ow) = (c2.output(h), c2.output(w));
        let first: Vec<_> = std::iter::once(c1).chain(&unit.shortcut).collect();
        UnitLayers {
            groups: [
                Group::new(&first, h, w, pairs),
                Group::new(&[c2], h, w, pairs),
                Group::new(&[c3], oh, ow, pairs),
            ],
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
        let (mut h, mut w) = (stem.output(height), stem.output(width));
        let pool = layout.pool.then(|| Pool::new((h, w)));
        let stem_values = pool.as_ref().map_or(0, |_| h * w * stem.outputs);
        if let Some(pool) = &pool {
            (h, w) = pool.output;
        }
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
            stem: Group::new(&[stem], height, width, pairs),
            pool,
            image_values: height * width * stem.inputs,
            y0_pixels,
            sizes: Sizes {
                stem: stem_values,
                y0: y0_pixels * stem.outputs,
                units: unit_sizes.collect(),
            },
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
