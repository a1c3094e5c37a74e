//! The keyed random numbers, bit by bit. With them another framework can train from the same initial
//! weights, batches and noise.

use crate::{float, floats, rows, singles};
use rand_distr::{Distribution, StandardNormal};
use s4l::rng::{RngExt, Stream, permutation, rng};

#[test]
fn draws_are_the_same_in_numpy() {
    for row in rows("keyed.json") {
        let key: Vec<u64> =
            row["key"].as_array().unwrap().iter().map(|word| word.as_u64().unwrap()).collect();
        let streams = [Stream::Init, Stream::LabelledOrder, Stream::VatDirection];
        let stream = streams.into_iter().find(|s| *s as u64 == key[1]).unwrap();
        let keyed = || rng(key[0], stream, key[2], key[3]);

        let mut generator = keyed();
        let uniform: Vec<f32> = (0..300).map(|_| generator.random()).collect();
        assert_eq!(uniform, singles(&row["floats"]));

        let below = [1, 2, 10, 1000, (1usize << 31) + 7].map(|n| keyed().random_range(0..n));
        assert_eq!(below.map(|i| i as f64)[..], floats(&row["below"]));

        let order = permutation(&mut keyed(), 100);
        let order: Vec<f64> = order.into_iter().map(f64::from).collect();
        assert_eq!(order, floats(&row["permutation"]));

        let mut generator = keyed();
        let mut draw = || -> f32 { StandardNormal.sample(&mut generator) };
        let normals: Vec<f32> = (0..20_000).map(|_| draw()).collect();
        assert_eq!(normals[..300], singles(&row["normals"]));
        let largest = normals.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert_eq!(largest, float(&row["largest"]) as f32);
        let sum: f64 = normals.iter().map(|&v| f64::from(v)).sum();
        assert!((sum - float(&row["sum"])).abs() < 1e-6, "{sum}");
    }
}
