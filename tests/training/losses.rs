//! Each loss at its extremes and by hand. Values and gradients are compared with TensorFlow's in `golden`.

use candle_core::{DType, Device, Tensor, Var};
use s4l::error::Result;
use s4l::methods::entropy_minimization::entropy;
use s4l::methods::exemplar::exemplar_loss;
use s4l::methods::fixmatch::consistency;
use s4l::methods::supervised::cross_entropy;
use s4l::methods::vat::divergence;

fn tensor<const C: usize>(rows: &[[f64; C]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), C), &Device::Cpu).unwrap()
}

#[track_caller]
fn is(loss: Result<Tensor>, expected: f64) {
    let loss = loss.unwrap();
    assert_eq!(loss.dtype(), DType::F64);
    let got: f64 = loss.to_scalar().unwrap();
    assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
}

#[test]
fn cross_entropy_of_large_logits_is_finite() {
    let z = tensor(&[[1e4, 0.0, -1e4]]);
    let label = |l: u32| Tensor::new(&[l], &Device::Cpu).unwrap();
    is(cross_entropy(&z, &label(0)), 0.0);
    is(cross_entropy(&z, &label(2)), 2e4);
}

/// By hand: the vectors 1, i, -1 and -i of the plane, with any lengths. The patches 1 and i are sqrt 2
/// apart, and so are -1 and -i. The nearest patch of another image is sqrt 2 away too: softplus(0).
#[test]
fn exemplar_by_hand() {
    let e = tensor(&[[3.0, 0.0], [0.0, 5.0], [-0.1, 0.0], [0.0, -2.0]]);
    is(exemplar_loss(&e, 0, 2), 2f64.ln());
    // The same if all are unlabelled.
    is(exemplar_loss(&e, 4, 2), 2f64.ln());
}

/// Equal patches (of a flat image, say) have a finite loss and gradient.
#[test]
fn exemplar_of_equal_patches_is_finite() {
    let e = Var::from_tensor(&Tensor::ones((6, 3), DType::F64, &Device::Cpu).unwrap()).unwrap();
    let loss = exemplar_loss(&e, 0, 2).unwrap();
    let gradient = loss.backward().unwrap().get(&e).unwrap().clone();
    is(Ok(loss), 2f64.ln());
    let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
}

#[test]
fn entropy_is_largest_for_equal_and_nothing_for_sure_predictions() {
    is(entropy(&tensor(&[[1.0; 7]])), 7f64.ln());
    is(entropy(&tensor(&[[1e4, 0.0, 0.0]])), 0.0);
}

/// By hand: the first weak view has a probability of 3/4, the second one of 1/2.
#[test]
fn fixmatch_counts_only_what_is_sure() {
    let weak = tensor(&[[3f64.ln(), 0.0], [0.0, 0.0]]);
    let strong = tensor(&[[0.0, 0.0], [0.0, 3f64.ln()]]);
    for (threshold, expected) in
        [(0.8, 0.0), (0.7, 2f64.ln() / 2.0), (0.5, (2f64.ln() + 4f64.ln()) / 2.0)]
    {
        is(consistency(&weak, &strong, threshold), expected);
    }
    let (weak, strong) = (Var::from_tensor(&weak).unwrap(), Var::from_tensor(&strong).unwrap());
    let gradients = consistency(&weak, &strong, 0.7).unwrap().backward().unwrap();
    assert!(gradients.get(&weak).is_none());
    let gradient = gradients.get(&strong).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(gradient[1], [0.0, 0.0]);
    assert!((gradient[0][0] + 0.25).abs() < 1e-12, "{gradient:?}");
}

#[test]
fn no_gradient_flows_into_the_clean_logits() {
    let [adversarial, clean] = [[0.5, -1.0, 2.0], [0.0, -0.5, 1.0]].map(|row| tensor(&[row]));
    let (adversarial, clean) =
        (Var::from_tensor(&adversarial).unwrap(), Var::from_tensor(&clean).unwrap());
    let gradients = divergence(&adversarial, &clean).unwrap().backward();
    let gradients = gradients.unwrap();
    assert!(gradients.get(&adversarial).is_some());
    assert!(gradients.get(&clean).is_none());
    is(divergence(&clean, &clean), 0.0);
}
