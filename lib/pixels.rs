//! Images in memory, shared by decoding, augmenting and shards: sizes, windows, views of pixels, and
//! operations that only move pixels (windows, mirroring, quarter turns).

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub height: usize,
    pub width: usize,
}

/// A rectangle of pixels inside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub y: usize,
    pub x: usize,
    pub height: usize,
    pub width: usize,
}

impl Window {
    pub fn at(y: usize, x: usize, size: Size) -> Window {
        Window { y, x, height: size.height, width: size.width }
    }

    /// The whole image.
    pub fn whole(image: Size) -> Window {
        Window::at(0, 0, image)
    }

    pub fn size(self) -> Size {
        Size { height: self.height, width: self.width }
    }

    /// The smallest window around both.
    pub fn around(self, other: Window) -> Window {
        let (y, x) = (self.y.min(other.y), self.x.min(other.x));
        let bottom = (self.y + self.height).max(other.y + other.height);
        let right = (self.x + self.width).max(other.x + other.width);
        Window { y, x, height: bottom - y, width: right - x }
    }

    /// The same pixels, if this window counts from the top left corner of `outer`.
    pub fn inside(self, outer: Window) -> Window {
        Window { y: self.y + outer.y, x: self.x + outer.x, ..self }
    }

    /// The same pixels, counted from the top left corner of a window around this one.
    pub fn within(self, outer: Window) -> Window {
        Window { y: self.y - outer.y, x: self.x - outer.x, ..self }
    }
}

impl Size {
    /// Whether a window of size `part` fits.
    pub fn holds(self, part: Size) -> bool {
        part.height <= self.height && part.width <= self.width
    }
}

/// Row-major HWC. Values are 0..255 until a step like `-1_to_1` maps them elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub data: Vec<f32>,
}

/// Rows of HWC values in a larger buffer: a whole image, or a window of one.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    pub size: Size,
    pub channels: usize,
    /// The values from the first pixel to at least the last one.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
}

impl<'a, T: Copy + Into<f32>> View<'a, T> {
    /// A whole image, row-major HWC. Panics if `data` has another length.
    pub fn new(data: &'a [T], size: Size, channels: usize) -> View<'a, T> {
        let stride = size.width * channels;
        assert_eq!(data.len(), size.height * stride, "{size:?} x {channels}");
        View { size, channels, data, stride }
    }

    /// The part inside `window`.
    pub fn window(&self, window: Window) -> View<'a, T> {
        View {
            size: window.size(),
            data: &self.data[window.y * self.stride + window.x * self.channels..],
            ..*self
        }
    }

    pub fn row(&self, y: usize) -> &'a [T] {
        &self.data[y * self.stride..][..self.size.width * self.channels]
    }

    /// A copy with the same values.
    pub fn to_image(&self) -> Image {
        let Size { height, width } = self.size;
        let mut data = vec![0.0; height * width * self.channels];
        self.write(None, &mut data);
        Image { height, width, channels: self.channels, data }
    }

    /// Writes the values to `out`, row after row, mapped as by the step `value_range` if a range is given.
    pub fn write(&self, range: Option<(f32, f32)>, out: &mut [f32]) {
        let mut view = *self;
        let Size { height, width } = view.size;
        if view.stride == width * view.channels {
            // Rows without a gap are written as one long row, which has only one end to handle.
            view.size = Size { height: 1, width: height * width };
        }
        pulp::Arch::new().dispatch(Write { view, range, out });
    }
}

struct Write<'a, T> {
    view: View<'a, T>,
    range: Option<(f32, f32)>,
    out: &'a mut [f32],
}

impl<T: Copy + Into<f32>> pulp::WithSimd for Write<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let width = self.view.size.width * self.view.channels;
        for (y, out) in self.out.chunks_exact_mut(width).enumerate() {
            let values = out.iter_mut().zip(self.view.row(y));
            match self.range {
                Some((min, max)) => {
                    for (out, &value) in values {
                        *out = in_range(value.into(), min, max);
                    }
                }
                None => {
                    for (out, &value) in values {
                        *out = value.into();
                    }
                }
            }
        }
    }
}

impl Image {
    pub fn view(&self) -> View<'_, f32> {
        View::new(&self.data, self.size(), self.channels)
    }

    pub fn size(&self) -> Size {
        Size { height: self.height, width: self.width }
    }

    /// The part inside `window`.
    pub fn crop(&self, window: Window) -> Image {
        self.view().window(window).to_image()
    }

    /// Mirrors left and right, in place.
    pub fn flip_lr(&mut self) {
        flip_lr(&mut self.data, self.width, self.channels);
    }

    /// Turned counter-clockwise by `turns` quarters (`turns` < 4), as `np.rot90(image, turns)`.
    pub fn rotate(&self, turns: usize) -> Image {
        let (h, w) = (self.height as isize, self.width as isize);
        let walk = match turns {
            0 => PixelWalk { start: 0, down: w, right: 1 },
            1 => PixelWalk { start: w - 1, down: -1, right: w },
            2 => PixelWalk { start: h * w - 1, down: -w, right: -1 },
            _ => PixelWalk { start: (h - 1) * w, down: 1, right: -w },
        };
        let (height, width) = match turns {
            0 | 2 => (self.height, self.width),
            _ => (self.width, self.height),
        };
        let mut data = vec![0.0; self.data.len()];
        // A literal number of channels lets the compiler copy a pixel without a call.
        match self.channels {
            1 => copy_pixels(&self.data, walk, width, 1, &mut data),
            3 => copy_pixels(&self.data, walk, width, 3, &mut data),
            c => copy_pixels(&self.data, walk, width, c, &mut data),
        }
        Image { height, width, channels: self.channels, data }
    }

    /// The values pixel by pixel of an image of three channels.
    pub fn rgb_mut(&mut self) -> impl Iterator<Item = &mut [f32; 3]> {
        self.data.as_chunks_mut::<3>().0.iter_mut()
    }
}

/// Mirrors rows of `width` pixels left and right.
pub fn flip_lr(values: &mut [f32], width: usize, channels: usize) {
    for row in values.chunks_exact_mut(width * channels) {
        match channels {
            3 => row.as_chunks_mut::<3>().0.reverse(),
            _ => {
                row.reverse();
                row.chunks_exact_mut(channels).for_each(<[f32]>::reverse);
            }
        }
    }
}

/// A path through the pixels of an image: the first pixel, and the steps from row to row and from pixel to
/// pixel.
struct PixelWalk {
    start: isize,
    down: isize,
    right: isize,
}

/// Fills `out`, rows of `width` pixels, by a walk through the pixels of `source`.
#[inline(always)]
fn copy_pixels(source: &[f32], walk: PixelWalk, width: usize, channels: usize, out: &mut [f32]) {
    let PixelWalk { start, down, right } = walk;
    let mut row_start = start;
    for row in out.chunks_exact_mut(width * channels) {
        let mut at = row_start;
        for pixel in row.chunks_exact_mut(channels) {
            pixel.copy_from_slice(&source[at as usize * channels..][..channels]);
            at += right;
        }
        row_start += down;
    }
}

/// Maps a value 0..255 to `min`..`max`.
#[inline(always)]
pub fn in_range(v: f32, min: f32, max: f32) -> f32 {
    min + share(v) * (max - min)
}

/// v / 255, rounded like the division: a product and its correction by the exact remainder (Markstein),
/// which is several times faster.
#[inline(always)]
fn share(v: f32) -> f32 {
    const RECIPROCAL: f32 = 1.0 / 255.0;
    let quotient = v * RECIPROCAL;
    let remainder = quotient.mul_add(-255.0, v);
    remainder.mul_add(RECIPROCAL, quotient)
}
