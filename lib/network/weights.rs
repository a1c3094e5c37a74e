//! What training learns, in host memory.

use super::layout::Layout;

/// Vectors in the order of the network's `Layout`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    pub parameters: Vec<f32>,
    /// The optimizer's, one of each parameter.
    pub velocity: Vec<f32>,
    /// Polyak average of the parameters; empty if there is none.
    pub average: Vec<f32>,
    /// Moving batch-norm statistics.
    pub moving: Vec<f32>,
}

impl Weights {
    /// Room for those of a network, without an average.
    pub fn zeros(layout: &Layout) -> Weights {
        Weights {
            parameters: vec![0.0; layout.parameters],
            velocity: vec![0.0; layout.parameters],
            average: Vec::new(),
            moving: vec![0.0; layout.moving],
        }
    }

    /// Where training from scratch begins.
    pub fn initial(layout: &Layout, seed: u64) -> Weights {
        Weights {
            parameters: layout.initial_parameters(seed),
            moving: layout.initial_moving(),
            ..Weights::zeros(layout)
        }
    }
}
