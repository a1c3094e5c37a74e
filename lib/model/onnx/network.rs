//! The network as nodes, for evaluation: batch norm with its moving statistics.

use super::graph::{Attribute, Graph, Name};
use crate::model::tensors::Place;
use crate::network::engine::BATCH_NORM_EPSILON;
use crate::network::layout::{Conv, Head, Layout, Norm};
use crate::network::weights::Weights;

/// From images `[batch, channels, height, width]` to the pre-logits, named `representation`, and the logits
/// of a head, named after the head.
pub fn add(
    graph: &mut Graph,
    images: &str,
    (layout, head, weights): (&Layout, &Head, &Weights),
    representation: &str,
) -> Name {
    let mut network = Network { graph, layout, weights };
    let mut x = network.conv(images, &layout.stem);
    if layout.pool {
        x = network.pool(&x);
    }
    for unit in &layout.units {
        let [norm1, norm2, norm3] = &unit.norms;
        let [conv1, conv2, conv3] = &unit.convs;
        let active = network.norm(&x, norm1);
        let shortcut = match &unit.shortcut {
            Some(conv) => network.conv(&active, conv),
            None => x,
        };
        let mut y = network.conv(&active, conv1);
        y = network.norm(&y, norm2);
        y = network.conv(&y, conv2);
        y = network.norm(&y, norm3);
        y = network.conv(&y, conv3);
        x = network.graph.add("Add", &[&shortcut, &y], &[]);
    }
    x = network.norm(&x, &layout.norm);
    let mean = network.graph.add("GlobalAveragePool", &[&x], &[]);
    let x = network.graph.add_named(representation, "Flatten", &[&mean], &[]);
    network.head(&x, head)
}

struct Network<'a> {
    graph: &'a mut Graph,
    layout: &'a Layout,
    weights: &'a Weights,
}

impl Network<'_> {
    fn conv(&mut self, x: &str, conv: &Conv) -> Name {
        let Conv { kernel: k, stride, inputs: i, outputs: o, .. } = *conv;
        let place = Place::Transposed(conv.range(), [k, k, i, o]);
        let name = format!("{}.kernel", conv.name);
        let kernel = self.graph.floats(&name, &[o, i, k, k], &place.get(self.weights));
        let [k, stride, pad] = [k, stride, k / 2].map(|n| n as i64);
        let attributes = [
            ("kernel_shape", Attribute::Ints(&[k, k])),
            ("strides", Attribute::Ints(&[stride, stride])),
            ("pads", Attribute::Ints(&[pad; 4])),
        ];
        self.graph.add_named(&conv.name, "Conv", &[x, &kernel], &attributes)
    }

    /// Batch norm and relu.
    fn norm(&mut self, x: &str, norm: &Norm) -> Name {
        let Weights { parameters, moving, .. } = self.weights;
        let mut vector = |part: &str, values: &[f32]| {
            self.graph.floats(&format!("{}.{part}", norm.name), &[norm.channels], values)
        };
        let gamma = vector("gamma", &parameters[norm.gamma()]);
        let beta = vector("beta", &parameters[norm.beta()]);
        let mean = vector("moving_mean", &moving[norm.mean()]);
        let variance = vector("moving_variance", &moving[norm.variance()]);
        let inputs = [x, &gamma, &beta, &mean, &variance];
        let epsilon = [("epsilon", Attribute::Float(BATCH_NORM_EPSILON as f32))];
        let x = self.graph.add_named(&norm.name, "BatchNormalization", &inputs, &epsilon);
        self.graph.add("Relu", &[&x], &[])
    }

    /// 3x3 with stride 2 and zero padding. MaxPool's own padding is below all values, so it cannot be used.
    fn pool(&mut self, x: &str) -> Name {
        let pads = self.graph.ints(&[0, 0, 1, 1, 0, 0, 1, 1]);
        let x = self.graph.add("Pad", &[x, &pads], &[]);
        let attributes =
            [("kernel_shape", Attribute::Ints(&[3, 3])), ("strides", Attribute::Ints(&[2, 2]))];
        self.graph.add("MaxPool", &[&x], &attributes)
    }

    fn head(&mut self, x: &str, head: &Head) -> Name {
        let (kernel, bias) = (self.layout.head_kernel(head), self.layout.head_bias(head));
        let values = &self.weights.parameters;
        let shape = [self.layout.features, head.outputs];
        let name = |part: &str| format!("heads.{}.{part}", head.name);
        let kernel = self.graph.floats(&name("kernel"), &shape, &values[kernel]);
        let bias = self.graph.floats(&name("bias"), &[head.outputs], &values[bias]);
        self.graph.add_named(&head.name, "Gemm", &[x, &kernel, &bias], &[])
    }
}
