//! Images that are not in shards, and how they become input of a network, for prediction.

use crate::artifact;
use crate::augment::{Pipe, PixelSource};
use crate::decode::kind;
use crate::decode::{Decoder, encoded};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::input::survey::Survey;
use crate::input::{self, Options, names};
use crate::model::folder::Model;
use crate::pixels::{Size, View, Window};
use crate::rng::{Stream, rng};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;
use std::path::Path;

/// An image that was found.
pub struct Picture {
    /// The path of the file, or of a folder or archive followed by the path inside it.
    pub path: String,
    /// Height, width and channels of pixels; `None` for an encoded image.
    shape: Option<[usize; 3]>,
    /// Its bytes, or what is wrong with it.
    image: std::result::Result<Vec<u8>, String>,
}

impl Picture {
    /// Bytes that it occupies.
    pub fn bytes(&self) -> usize {
        self.image.as_ref().map_or(0, Vec::len)
    }
}

/// Visits the images of a path: an image file, or what `s4l-shard` reads, in its order. `name` stands for
/// the path in those of the images.
///
/// Errors: those of `visit` and of `input::open`.
pub fn each(path: &Path, name: &str, visit: &mut dyn FnMut(Picture) -> Result<()>) -> Result<()> {
    if is_image(path)? {
        let image = std::fs::read(path).map_err(Error::io(path))?;
        return visit(Picture { path: name.to_string(), shape: None, image: Ok(image) });
    }
    let input = input::open(path, &Options::default())?;
    // Errors of images after a cut are reported one by one.
    let survey = Survey::new(&input, u64::MAX, true)?;
    for span in &survey.spans {
        survey.read(&input, span, &mut |sample| {
            let path = format!("{}/{}", name.trim_end_matches('/'), sample.path);
            visit(Picture { path, shape: survey.shape, image: sample.image })
        })?;
    }
    Ok(())
}

/// The hash of what `each` reads.
pub fn hash(path: &Path) -> Result<String> {
    match path.is_file() {
        true => artifact::hash_file(path),
        false => input::open(path, &Options::default())?.hash(),
    }
}

/// Whether a path is an image file, by its name or its first bytes.
fn is_image(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(12).read_to_end(&mut start).map_err(Error::io(path))?;
    Ok(names::is_image_name(&name) || kind::is_image(&start))
}

/// How a model's images are prepared: the first view of its `augment_eval`, as `eval.parquet` has it.
pub struct Preparation {
    pipe: Pipe,
    channels: usize,
    /// Values of all views, and of one.
    all: usize,
    pub values: usize,
}

impl Preparation {
    /// Errors: `BadData` unless the pipe gives images of the size that the model takes.
    pub fn of(model: &Model) -> Result<Preparation> {
        let pipe = Pipe::for_evaluation(&model.config.settings.augment_eval)?;
        let channels = model.config.architecture.channels;
        logits::check_size(&model.config, channels, &model.path, &pipe)?;
        let output = pipe.output(channels)?;
        Ok(Preparation {
            pipe,
            channels,
            all: output.values(),
            values: output.values() / output.views,
        })
    }

    /// The network's input for an image. A model of grey images takes the luma of a coloured image; a model
    /// of coloured images takes a grey image with three equal channels.
    ///
    /// Errors: what is wrong with the image, one line.
    pub fn view(&self, picture: Picture) -> std::result::Result<Vec<f32>, String> {
        thread_local! {
            static DECODER: RefCell<Decoder> = RefCell::default();
        }
        let bytes = picture.image?;
        let mut values = vec![0.0; self.all];
        match picture.shape {
            Some([height, width, channels]) if bytes.len() == height * width * channels => {
                self.pixels(View::new(&bytes, Size { height, width }, channels), &mut values)?;
            }
            Some(_) => return Err(format!("{} bytes of pixels", bytes.len())),
            None => DECODER.with_borrow_mut(|decoder| {
                let size = encoded::check(&bytes)?;
                match self.channels {
                    RGB => self.apply(&mut Encoded { bytes: &bytes, size, decoder }, &mut values),
                    _ => self.pixels(decoder.whole(&bytes)?, &mut values),
                }
            })?,
        }
        values.truncate(self.values);
        Ok(values)
    }

    /// The views of pixels of any number of channels.
    fn pixels(&self, view: View<u8>, out: &mut [f32]) -> std::result::Result<(), String> {
        let rows = (0..view.size.height).flat_map(|y| view.row(y)).copied();
        let pixels: Cow<[u8]> = match (view.channels, self.channels) {
            (RGB, 1) => {
                let all: Vec<u8> = rows.collect();
                all.chunks_exact(RGB).map(luma).collect()
            }
            (1, RGB) => rows.flat_map(|grey| [grey; RGB]).collect(),
            (found, wanted) if found == wanted => rows.collect(),
            (found, wanted) => {
                return Err(format!("{found} channels, and the model takes {wanted}"));
            }
        };
        self.apply(&mut View::new(&pixels, view.size, self.channels), out)
    }

    fn apply(
        &self,
        source: &mut impl PixelSource,
        out: &mut [f32],
    ) -> std::result::Result<(), String> {
        // Evaluation pipes draw nothing; the key only completes the call.
        let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
        self.pipe.apply(source, &mut rng, out).map_err(|e| match e {
            Error::BadData { found, .. } => found,
            e => e.to_string(),
        })
    }
}

/// Channels of a coloured image.
const RGB: usize = 3;

/// ITU-R BT.601, as most programs make grey of colours; that of a grey pixel is its level.
fn luma(pixel: &[u8]) -> u8 {
    let weighted =
        pixel.iter().zip([299, 587, 114]).map(|(&value, weight)| u32::from(value) * weight);
    ((weighted.sum::<u32>() + 500) / 1000) as u8
}

/// An image file in memory on its way into a pipe.
struct Encoded<'a> {
    bytes: &'a [u8],
    size: Size,
    decoder: &'a mut Decoder,
}

impl Encoded<'_> {
    fn pixels(&mut self, window: Window, enough: Option<Size>) -> Result<View<'_, u8>> {
        let Encoded { bytes, size, ref mut decoder } = *self;
        let pixels = decoder.window(bytes, size, window, enough);
        pixels.map_err(|found| Error::bad_data(Path::new(""), "an image", found, ""))
    }
}

impl PixelSource for Encoded<'_> {
    fn size(&self) -> Size {
        self.size
    }

    fn channels(&self) -> usize {
        RGB
    }

    fn window(&mut self, window: Window) -> Result<View<'_, u8>> {
        self.pixels(window, None)
    }

    fn reduced(&mut self, window: Window, enough: Size) -> Result<View<'_, u8>> {
        self.pixels(window, Some(enough))
    }
}
