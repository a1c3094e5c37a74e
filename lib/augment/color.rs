//! Steps that change values and move no pixel. Arithmetic is in f32 and nothing is rounded.

use crate::pixels::{Image, in_range};
use crate::rng::{Rng, RngExt};

/// Hue, saturation and value, each 0..1, of a colour 0..1, as `tf.image.rgb_to_hsv`: grey has
/// hue 0, black has saturation 0.
pub fn rgb_to_hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let value = r.max(g).max(b);
    let range = value - r.min(g).min(b);
    let saturation = if value > 0.0 { range / value } else { 0.0 };
    let hue = if range <= 0.0 {
        0.0
    } else if r == value {
        (g - b) / range / 6.0
    } else if g == value {
        (b - r) / range / 6.0 + 2.0 / 6.0
    } else {
        (r - g) / range / 6.0 + 4.0 / 6.0
    };
    [if hue < 0.0 { hue + 1.0 } else { hue }, saturation, value]
}

/// The colour of a hue, saturation and value, each 0..1, as `tf.image.hsv_to_rgb`.
pub fn hsv_to_rgb([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    let h = hue * 6.0;
    [(h - 3.0).abs() - 1.0, 2.0 - (h - 2.0).abs(), 2.0 - (h - 4.0).abs()]
        .map(|full| (1.0 - saturation + saturation * full.clamp(0.0, 1.0)) * value)
}

/// One draw of `hsvnoise`. RGB 0..255 in and out. The hue turns by `hue`; saturation and value each
/// go through v -> v^power * scale + shift; all are clipped to 0..1 before the way back.
/// Source: S4L, preprocess.py.
#[derive(Debug, Clone, Copy)]
pub struct HsvNoise {
    pub hue: f32,
    pub power: [f32; 2],
    pub scale: [f32; 2],
    pub shift: [f32; 2],
}

impl HsvNoise {
    /// hue ~ U(-0.1, 0.1); power = 2^U(-2, 2), scale = 2^U(-0.5, 0.5), shift ~ U(-0.1, 0.1), apart
    /// for saturation and value.
    pub fn draw(rng: &mut impl Rng) -> HsvNoise {
        let mut pair = |range: f32| [(); 2].map(|()| rng.random_range(-range..range));
        HsvNoise {
            power: pair(2.0).map(f32::exp2),
            scale: pair(0.5).map(f32::exp2),
            shift: pair(0.1),
            hue: rng.random_range(-0.1..0.1),
        }
    }

    pub fn apply(&self, image: &mut Image) {
        for pixel in image.rgb_mut() {
            let [hue, saturation, value] = rgb_to_hsv(pixel.map(|v| v / 255.0));
            // Bicubic resizing can leave a pixel below black; without `max` its power is NaN.
            let bend = |v: f32, i: usize| {
                (v.max(0.0).powf(self.power[i]) * self.scale[i] + self.shift[i]).clamp(0.0, 1.0)
            };
            let hue = (1.0 + hue + self.hue).fract();
            *pixel = hsv_to_rgb([hue, bend(saturation, 0), bend(value, 1)]).map(|v| v * 255.0);
        }
    }
}

/// One draw of slim's fast colour distortion. RGB 0..255 in, -1..1 out: `brightness` is added to
/// values 0..1 (not clipped), the saturation is multiplied by `saturation` and clipped to 0..1, the
/// colour is clipped to 0..1 and mapped to -1..1. Source: S4L, inception_preprocessing.py.
#[derive(Debug, Clone, Copy)]
pub struct InceptionColor {
    pub brightness: f32,
    pub saturation: f32,
}

impl InceptionColor {
    /// brightness ~ U(-32/255, 32/255), saturation ~ U(0.5, 1.5).
    pub fn draw(rng: &mut impl Rng) -> InceptionColor {
        InceptionColor {
            brightness: rng.random_range(-32.0 / 255.0..32.0 / 255.0),
            saturation: rng.random_range(0.5..1.5),
        }
    }

    pub fn apply(&self, image: &mut Image) {
        for pixel in image.rgb_mut() {
            let [hue, saturation, value] = rgb_to_hsv(pixel.map(|v| v / 255.0 + self.brightness));
            let saturation = (saturation * self.saturation).clamp(0.0, 1.0);
            *pixel = hsv_to_rgb([hue, saturation, value]).map(|v| (v.clamp(0.0, 1.0) - 0.5) * 2.0);
        }
    }
}

/// 0..255 to `min`..`max`: min + (v / 255) * (max - min). `-1_to_1` and `0_to_1` are this.
pub fn value_range(image: &mut Image, min: f32, max: f32) {
    map_range(&mut image.data, min, max);
}

/// `value_range` of values anywhere.
pub(super) fn map_range(values: &mut [f32], min: f32, max: f32) {
    struct Map<'a>(&'a mut [f32], f32, f32);
    impl pulp::WithSimd for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Map(data, min, max) = self;
            for v in data {
                *v = in_range(*v, min, max);
            }
        }
    }
    pulp::Arch::new().dispatch(Map(values, min, max));
}

/// Each pixel's three values replaced by their mean; any range.
pub fn to_gray(image: &mut Image) {
    for pixel in image.rgb_mut() {
        *pixel = [pixel.iter().sum::<f32>() / 3.0; 3];
    }
}

/// (v - mean) / max(deviation, 1 / sqrt(n)) over the n values of the image, any range; the
/// deviation is the population's. As `tf.image.per_image_standardization`, with sums in f64.
pub fn standardize(image: &mut Image) {
    let n = image.data.len() as f64;
    let mean = image.data.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares = image.data.iter().map(|&v| (f64::from(v) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / n).sqrt().max(n.sqrt().recip());
    for v in &mut image.data {
        *v = ((f64::from(*v) - mean) / deviation) as f32;
    }
}
