//! Each loss: its value against NumPy in float64, its gradient against finite differences.
//!
//! The expected numbers come from
//! ```python
//! import numpy as np
//! z = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-2.0, 0.0, 1.0], [0.1, 0.2, 0.3]])
//! y = np.array([2, 1, 0, 1])
//! q = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8]])
//! c = np.array([[0.0, -0.5, 1.0], [1.0, 1.0, -1.0], [-1.0, 0.5, 0.5], [0.3, 0.2, 0.1]])
//! log_p = lambda z: z - np.log(np.exp(z).sum(1, keepdims=True))
//! p = lambda z: np.exp(log_p(z))
//! ce = lambda z, y: -log_p(z)[np.arange(len(y)), y].mean()
//! ce(z, y)                                          # 1.568234742765453
//! -(q * log_p(z)).sum(1).mean()                     # 1.463234742765453
//! -(p(z) * log_p(z)).sum(1).mean()                  # 0.7972707172853248
//! (p(z) * (log_p(z) - log_p(c))).sum(1).mean()      # 0.09487702637007314
//!
//! r = np.array([[np.sin(1.0 + 3 * i + 7 * j) * 2 for j in range(4)] for i in range(12)])
//! t = np.arange(12) % 4
//! (ce(r[:8], t[:8]) + ce(r[8:], t[8:])) / 2         # 1.9311885955876078
//! ce(r[8:], t[8:])                                  # 2.3030890183341595
//!
//! e = np.array([[np.sin(1.0 + 3 * i + 7 * j) * 2 + 0.5 * np.cos(i // 2 + j) * 3
//!                for j in range(5)] for i in range(10)])
//! def triplet(e, n):
//!     e = e / np.sqrt(np.maximum((e ** 2).sum(1, keepdims=True), 1e-12))
//!     losses = []
//!     for a in range(len(e)):
//!         d = [np.sqrt(max(((e[a] - e[b]) ** 2).sum(), 1e-12)) for b in range(len(e))]
//!         same = [b // n == a // n for b in range(len(e))]
//!         far = max(d[b] for b in range(len(e)) if same[b])
//!         near = min(d[b] for b in range(len(e)) if not same[b])
//!         losses.append(np.log1p(np.exp(far - near)))
//!     return np.mean(losses)
//! (triplet(e[:6], 2) + triplet(e[6:], 2)) / 2       # 1.3340643386489788
//! triplet(e[6:], 2)                                 # 1.2742038827871696
//! ```

use candle_core::{DType, Device, Tensor, Var};
use s4l::error::Result;
use s4l::methods::entropy_minimization::entropy;
use s4l::methods::exemplar::exemplar_loss;
use s4l::methods::rotation::rotation_loss;
use s4l::methods::supervised::{cross_entropy, soft_cross_entropy};
use s4l::methods::vat::divergence;

fn tensor<const C: usize>(rows: &[[f64; C]]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), C), &Device::Cpu).unwrap()
}

fn z() -> Tensor {
    tensor(&[
        [0.5, -1.0, 2.0],
        [1.5, 0.25, -0.75],
        [-2.0, 0.0, 1.0],
        [0.1, 0.2, 0.3],
    ])
}

fn y() -> Tensor {
    Tensor::new(&[2u32, 1, 0, 1], &Device::Cpu).unwrap()
}

fn q() -> Tensor {
    tensor(&[
        [0.7, 0.2, 0.1],
        [0.0, 1.0, 0.0],
        [0.25, 0.25, 0.5],
        [0.1, 0.1, 0.8],
    ])
}

fn c() -> Tensor {
    tensor(&[
        [0.0, -0.5, 1.0],
        [1.0, 1.0, -1.0],
        [-1.0, 0.5, 0.5],
        [0.3, 0.2, 0.1],
    ])
}

fn r() -> Tensor {
    let at = |i: usize, j: usize| (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * 2.0;
    let rows: Vec<[f64; 4]> = (0..12).map(|i| std::array::from_fn(|j| at(i, j))).collect();
    tensor(&rows)
}

/// Two patches of each of five images.
fn e() -> Tensor {
    let at = |i: usize, j: usize| {
        (1.0 + 3.0 * i as f64 + 7.0 * j as f64).sin() * 2.0 + 1.5 * ((i / 2 + j) as f64).cos()
    };
    let rows: Vec<[f64; 5]> = (0..10).map(|i| std::array::from_fn(|j| at(i, j))).collect();
    tensor(&rows)
}

fn value(loss: Result<Tensor>) -> f64 {
    let loss = loss.unwrap();
    assert_eq!(loss.dtype(), DType::F64);
    loss.to_scalar().unwrap()
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
}

/// The gradient of `loss` at `x` is that of central differences, to 1e-8 in float64.
#[track_caller]
fn gradient_is_exact(x: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) {
    let var = Var::from_tensor(x).unwrap();
    let gradients = loss(&var).unwrap().backward().unwrap();
    let gradient = gradients.get(&var).unwrap().flatten_all().unwrap();
    let gradient = gradient.to_vec1::<f64>().unwrap();
    let values = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(
        gradient.iter().any(|g| g.abs() > 1e-3),
        "nothing to compare"
    );
    for (i, g) in gradient.iter().enumerate() {
        let at = |h: f64| {
            let mut moved = values.clone();
            moved[i] += h;
            value(loss(
                &Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap(),
            ))
        };
        let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!(
            (g - difference).abs() < 1e-8,
            "value {i}: gradient {g}, difference {difference}"
        );
    }
}

#[test]
fn cross_entropy_with_hard_labels() {
    close(value(cross_entropy(&z(), &y())), 1.568234742765453);
    gradient_is_exact(&z(), |z| cross_entropy(z, &y()));
}

#[test]
fn cross_entropy_with_soft_labels() {
    close(value(soft_cross_entropy(&z(), &q())), 1.463234742765453);
    gradient_is_exact(&z(), |z| soft_cross_entropy(z, &q()));
}

#[test]
fn cross_entropy_of_large_logits_is_finite() {
    let z = tensor(&[[1e4, 0.0, -1e4]]);
    let label = |l: u32| Tensor::new(&[l], &Device::Cpu).unwrap();
    close(value(cross_entropy(&z, &label(0))), 0.0);
    close(value(cross_entropy(&z, &label(2))), 2e4);
}

/// 8 unlabelled and 4 labelled rows: a mean of two means, not the mean over all rows.
#[test]
fn rotation() {
    close(value(rotation_loss(&r(), 8)), 1.9311885955876078);
    gradient_is_exact(&r(), |r| rotation_loss(r, 8));
}

#[test]
fn rotation_of_one_part() {
    let labelled = r().narrow(0, 8, 4).unwrap();
    close(value(rotation_loss(&labelled, 0)), 2.3030890183341595);
    close(value(rotation_loss(&labelled, 4)), 2.3030890183341595);
    gradient_is_exact(&labelled, |r| rotation_loss(r, 0));
}

/// 3 unlabelled and 2 labelled images: each part has its own negatives.
#[test]
fn exemplar() {
    close(value(exemplar_loss(&e(), 6, 2)), 1.3340643386489788);
    gradient_is_exact(&e(), |e| exemplar_loss(e, 6, 2));
}

#[test]
fn exemplar_of_one_part() {
    let labelled = e().narrow(0, 6, 4).unwrap();
    close(value(exemplar_loss(&labelled, 0, 2)), 1.2742038827871696);
    close(value(exemplar_loss(&labelled, 4, 2)), 1.2742038827871696);
}

/// By hand: the vectors 1, i, -1 and -i of the plane, of any length. The patches 1 and i lie at
/// sqrt 2 and so do -1 and -i; the nearest stranger of each lies at sqrt 2 too: softplus(0).
#[test]
fn exemplar_by_hand() {
    let e = tensor(&[[3.0, 0.0], [0.0, 5.0], [-0.1, 0.0], [0.0, -2.0]]);
    close(value(exemplar_loss(&e, 0, 2)), 2f64.ln());
}

/// Patches that are all alike (of a flat image, say) have a loss and a gradient.
#[test]
fn exemplar_of_equal_patches_is_finite() {
    let e = Var::from_tensor(&Tensor::ones((6, 3), DType::F64, &Device::Cpu).unwrap()).unwrap();
    let loss = exemplar_loss(&e, 0, 2).unwrap();
    close(loss.to_scalar().unwrap(), 2f64.ln());
    let gradient = loss.backward().unwrap().get(&e).unwrap().clone();
    let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
}

#[test]
fn entropy_minimization() {
    close(value(entropy(&z())), 0.7972707172853248);
    gradient_is_exact(&z(), entropy);
    close(value(entropy(&tensor(&[[1.0; 7]]))), 7f64.ln());
    close(value(entropy(&tensor(&[[1e4, 0.0, 0.0]]))), 0.0);
}

/// KL(adversarial || clean); the other direction would be 0.10999.
#[test]
fn divergence_of_the_adversarial_from_the_clean() {
    close(value(divergence(&z(), &c())), 0.09487702637007314);
    close(value(divergence(&c(), &c())), 0.0);
    gradient_is_exact(&z(), |z| divergence(z, &c()));
}

#[test]
fn no_gradient_flows_into_the_clean_logits() {
    let (z, c) = (
        Var::from_tensor(&z()).unwrap(),
        Var::from_tensor(&c()).unwrap(),
    );
    let gradients = divergence(&z, &c).unwrap().backward().unwrap();
    assert!(gradients.get(&z).is_some());
    assert!(gradients.get(&c).is_none());
}
