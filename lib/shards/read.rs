//! Reading: a split of a shard folder as one row space.

use super::column::ShardFile;
use super::dataset::{Dataset, SplitInfo};
use super::digest::{self, LabelsHash, RowsHash};
use super::keys::Keys;
use crate::augment::{Pipe, PixelSource};
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::pixels::{Size, View, Window};
use crate::rng::Rng;
use crate::schema::{self, shard_file};
use rayon::prelude::*;
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What to do about a damaged folder.
const AGAIN: &str = "make the shards again with s4l-shard --force";

/// All images of a split. Cheap to clone, shared between threads. A row number that is not below
/// `len` is a bug of the caller and panics, as with a slice.
#[derive(Debug, Clone)]
pub struct Split(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    files: Vec<ShardFile>,
    /// First row of each file.
    first_rows: Vec<usize>,
    keys: Keys,
    /// Rows in the order of their keys.
    by_key: Vec<u32>,
    /// Height and width of each image; none if all have one shape.
    sizes: Vec<(u32, u32)>,
    shape: Option<[usize; 3]>,
    classes: usize,
    content: String,
    labels: OnceLock<Vec<Option<u32>>>,
    /// `LabelsHash` of each file; none if nothing is checked.
    labels_hashes: Vec<String>,
    images: Images,
}

/// The hashes of all images; none if nothing is checked. An image is checked when it is first read: a
/// bit of each row says whether it was.
#[derive(Debug, Default)]
struct Images {
    hashes: Vec<u64>,
    checked: Vec<AtomicU64>,
}

/// The bytes of a row as they are stored, without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored<'a> {
    /// Row-major HWC uint8.
    Pixels(&'a [u8]),
    /// A PNG or JPEG file.
    Encoded(&'a [u8]),
}

/// An image in row-major HWC uint8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Cow<'a, [u8]>,
}

impl Split {
    /// Errors: as `Shards::split`.
    pub(super) fn open(
        folder: &Path,
        name: &str,
        info: &SplitInfo,
        dataset: &Dataset,
    ) -> Result<Split> {
        let files = files(folder, name, info, dataset.shape.is_some())?;
        let rows: usize = files.iter().map(|f| f.rows).sum();
        if rows != info.images || u32::try_from(rows).is_err() {
            return Err(Error::bad_data(
                folder,
                format!("{} images in split {name:?}", info.images),
                format!("{rows}"),
                AGAIN,
            ));
        }
        let mut first_rows = Vec::with_capacity(files.len());
        // Not yet allocated for rows that the footers only claim.
        let (mut keys, mut sizes, mut hashes) = (Keys::default(), Vec::new(), Vec::new());
        for (nth, file) in files.iter().enumerate() {
            first_rows.push(keys.len());
            let found = file.texts(schema::KEY)?;
            let found_sizes = self::sizes(file, dataset.shape)?;
            if let Some(expected) = info.rows.get(nth) {
                hashes.extend(checked_hashes(file, &found, &found_sizes, expected)?);
            }
            found.iter().for_each(|key| keys.push(key));
            if dataset.shape.is_none() {
                sizes.extend(found_sizes);
            }
        }
        let by_key = keys.in_order().map_err(|[first, second]| {
            Error::bad_data(
                folder,
                format!("each key once in split {name:?}"),
                format!("{:?} in rows {first} and {second}", keys.get(first as usize)),
                AGAIN,
            )
        })?;
        Ok(Split(Arc::new(Inner {
            folder: folder.to_path_buf(),
            files,
            first_rows,
            keys,
            by_key,
            sizes,
            shape: dataset.shape,
            classes: dataset.classes.len(),
            content: info.content.clone(),
            labels: OnceLock::new(),
            labels_hashes: info.labels.clone(),
            images: Images {
                checked: (0..hashes.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
                hashes,
            },
        })))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.0.keys.len()
    }

    /// Whether it has no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> &str {
        self.0.keys.get(row)
    }

    /// Keys in row order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|row| self.key(row))
    }

    /// The row of a key.
    pub fn row(&self, key: &str) -> Option<usize> {
        let order = &self.0.by_key;
        order
            .binary_search_by(|&row| self.key(row as usize).cmp(key))
            .ok()
            .map(|at| order[at] as usize)
    }

    /// Labels in row order, `None` if unknown. The column is read on the first call only, so a
    /// training stage, which takes its labels elsewhere, never touches it.
    ///
    /// Errors: `BadData` if the column is absent, damaged or changed, or has a label outside the classes.
    pub fn labels(&self) -> Result<&[Option<u32>]> {
        if let Some(labels) = self.0.labels.get() {
            return Ok(labels);
        }
        let mut labels = Vec::with_capacity(self.len());
        for (nth, file) in self.0.files.iter().enumerate() {
            let mut hash = LabelsHash::default();
            for label in file.ints(schema::LABEL)? {
                hash.add(label);
                let index = label.map(u32::try_from).transpose().ok();
                let inside = |l: &Option<u32>| l.is_none_or(|l| (l as usize) < self.0.classes);
                labels.push(index.filter(inside).ok_or_else(|| {
                    Error::bad_data(
                        &file.path,
                        format!("labels below the number of classes, {}", self.0.classes),
                        format!("{}", label.unwrap_or_default()),
                        AGAIN,
                    )
                })?);
            }
            if self.0.labels_hashes.get(nth).is_some_and(|expected| *expected != hash.hex()) {
                return Err(changed(&file.path, "labels"));
            }
        }
        Ok(self.0.labels.get_or_init(|| labels))
    }

    /// The content hash of each image, in row order: equal if the bytes are.
    ///
    /// Errors: `BadData` if the column is absent or damaged.
    pub fn hashes(&self) -> Result<Vec<String>> {
        let files = self.0.files.par_iter();
        let hashes: Result<Vec<_>> = files.map(|file| file.texts(schema::HASH)).collect();
        Ok(hashes?.concat())
    }

    /// Channels of a decoded image: 1 for grey pixels, else 3.
    pub fn channels(&self) -> usize {
        self.0.shape.map_or(3, |[_, _, channels]| channels)
    }

    /// Height and width of a row.
    pub fn size(&self, row: usize) -> (usize, usize) {
        match self.0.shape {
            Some([height, width, _]) => (height, width),
            None => {
                let (height, width) = self.0.sizes[row];
                (height as usize, width as usize)
            }
        }
    }

    /// The bytes of a row, without a copy.
    ///
    /// Errors: `BadData` if the file is damaged, or the image has not the hash of its row.
    pub fn stored(&self, row: usize) -> Result<Stored<'_>> {
        let (file, row_of_file) = self.place(row);
        let bytes = file.image(row_of_file)?;
        self.0.images.check(row, bytes).map_err(|found| {
            let expected = format!("the image of {:?} that s4l-shard wrote", self.key(row));
            Error::bad_data(&file.path, expected, found, AGAIN)
        })?;
        match self.0.shape {
            None => Ok(Stored::Encoded(bytes)),
            Some([h, w, c]) if bytes.len() == h * w * c => Ok(Stored::Pixels(bytes)),
            Some(shape) => Err(Error::bad_data(
                &file.path,
                format!("images of shape {shape:?}"),
                format!("{} bytes for {:?}", bytes.len(), self.key(row)),
                AGAIN,
            )),
        }
    }

    /// Asks the system to have a row in memory soon. A loader does so some 64 images ahead, so that
    /// a file that is not in the page cache is read in parallel, and no more of it than is used.
    pub fn prefetch(&self, row: usize) {
        let (file, row) = self.place(row);
        file.prefetch(row);
    }

    /// Asks the processor to have a small row in its cache soon: worth it some rows ahead.
    pub fn touch(&self, row: usize) {
        let (file, row) = self.place(row);
        file.touch(row);
    }

    /// The file that a row is in, and its row there.
    fn place(&self, row: usize) -> (&ShardFile, usize) {
        assert!(row < self.len(), "row {row} of {}", self.len());
        // The first file starts at row 0, so at least one is before any row.
        let file = self.0.first_rows.partition_point(|&first| first <= row) - 1;
        (&self.0.files[file], row - self.0.first_rows[file])
    }

    /// The pixels of a row; an encoded image becomes RGB.
    ///
    /// Errors: `BadData` if the file is damaged or the image does not decode.
    pub fn decode(&self, row: usize) -> Result<Decoded<'_>> {
        let (height, width) = self.size(row);
        let (channels, pixels) = match self.stored(row)? {
            Stored::Pixels(pixels) => (self.channels(), Cow::Borrowed(pixels)),
            Stored::Encoded(_) => {
                let pixels = self.with_source(row, |source| {
                    let whole = Window::whole(source.size());
                    let view = source.window(whole)?;
                    Ok((0..height).flat_map(|y| view.row(y)).copied().collect())
                });
                (3, Cow::Owned(pixels?))
            }
        };
        Ok(Decoded { height, width, channels, pixels })
    }

    /// Writes the views that a pipe makes of a row to `out`, which is as long as `Pipe::output` says.
    ///
    /// Errors: as `decode` and `Pipe::views`.
    pub fn augment(
        &self,
        row: usize,
        pipe: &Pipe,
        rng: &mut impl Rng,
        out: &mut [f32],
    ) -> Result<()> {
        self.with_source(row, |source| pipe.apply(source, rng, out))
    }

    /// Calls `f` with an image and the decoder of this thread.
    fn with_source<T>(&self, row: usize, f: impl FnOnce(&mut RowSource) -> Result<T>) -> Result<T> {
        thread_local! {
            static DECODER: RefCell<Decoder> = RefCell::default();
        }
        // Loads all of the row at once, if it was not prefetched before.
        self.prefetch(row);
        let stored = self.stored(row)?;
        DECODER.with_borrow_mut(|decoder| f(&mut RowSource { split: self, row, stored, decoder }))
    }

    /// Hash over keys and images in row order, not labels.
    pub fn content_hash(&self) -> &str {
        &self.0.content
    }

    /// The shard folder.
    pub fn path(&self) -> &Path {
        &self.0.folder
    }
}

impl Images {
    /// Errors: what was found, if the bytes of a row are not those that were written.
    fn check(&self, row: usize, bytes: &[u8]) -> std::result::Result<(), String> {
        let (Some(&expected), Some(checked)) = (self.hashes.get(row), self.checked.get(row / 64))
        else {
            return Ok(());
        };
        let bit = 1 << (row % 64);
        if checked.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        if digest::image_hash(&blake3::hash(bytes)) != expected {
            return Err(format!("other bytes than those of the hash {expected:016x}"));
        }
        checked.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }
}

/// An image of a split on its way into a pipe.
struct RowSource<'a> {
    split: &'a Split,
    row: usize,
    stored: Stored<'a>,
    decoder: &'a mut Decoder,
}

impl PixelSource for RowSource<'_> {
    fn size(&self) -> Size {
        let (height, width) = self.split.size(self.row);
        Size { height, width }
    }

    fn channels(&self) -> usize {
        self.split.channels()
    }

    fn window(&mut self, window: Window) -> Result<View<'_, u8>> {
        self.pixels(window, None)
    }

    fn reduced(&mut self, window: Window, enough: Size) -> Result<View<'_, u8>> {
        self.pixels(window, Some(enough))
    }
}

impl RowSource<'_> {
    fn pixels(&mut self, window: Window, enough: Option<Size>) -> Result<View<'_, u8>> {
        let (size, split) = (self.size(), self.split);
        match self.stored {
            Stored::Pixels(pixels) => {
                Ok(View::new(pixels, size, PixelSource::channels(self)).window(window))
            }
            Stored::Encoded(bytes) => {
                self.decoder.window(bytes, size, window, enough).map_err(|found| {
                    let Size { height, width } = size;
                    Error::bad_data(
                        &split.0.folder,
                        format!("a {height}x{width} image under {:?}", split.key(self.row)),
                        found,
                        AGAIN,
                    )
                })
            }
        }
    }
}

/// Opens the files of a split: `pixels`, or encoded images.
fn files(folder: &Path, split: &str, info: &SplitInfo, pixels: bool) -> Result<Vec<ShardFile>> {
    let image = match pixels {
        true => schema::PIXELS,
        false => schema::IMAGE_BYTES,
    };
    let names = (0..info.files).into_par_iter().map(|file| shard_file(split, file, info.files));
    names.map(|name| ShardFile::open(&folder.join(name), image)).collect()
}

/// The image hashes of a file, if its small columns have the hash `expected`.
fn checked_hashes(
    file: &ShardFile,
    keys: &[String],
    sizes: &[(u32, u32)],
    expected: &str,
) -> Result<Vec<u64>> {
    let hashes = file.hashes()?;
    let mut found = RowsHash::default();
    for ((key, &size), &hash) in keys.iter().zip(sizes).zip(&hashes) {
        found.add(key, size, hash);
    }
    match found.hex() == expected {
        true => Ok(hashes),
        false => Err(changed(&file.path, "keys, sizes and hashes")),
    }
}

fn changed(path: &Path, what: &str) -> Error {
    Error::bad_data(
        path,
        format!("the {what} that s4l-shard wrote"),
        format!("other {what}"),
        AGAIN,
    )
}

/// Height and width of all rows of a file, checked against the shape of pixels.
fn sizes(file: &ShardFile, shape: Option<[usize; 3]>) -> Result<Vec<(u32, u32)>> {
    let heights = file.ints(schema::HEIGHT)?;
    let widths = file.ints(schema::WIDTH)?;
    let size = |side: Option<i64>| side.and_then(|s| u32::try_from(s).ok()).filter(|&s| s > 0);
    let pairs = heights.into_iter().zip(widths);
    pairs
        .map(|(h, w)| match (size(h), size(w)) {
            (Some(height), Some(width))
                if shape.is_none_or(|[h, w, _]| (h, w) == (height as usize, width as usize)) =>
            {
                Ok((height, width))
            }
            _ => Err(Error::bad_data(
                &file.path,
                shape.map_or("a positive height and width".to_string(), |[h, w, _]| {
                    format!("only images of {h}x{w}")
                }),
                format!("{}x{}", h.unwrap_or_default(), w.unwrap_or_default()),
                AGAIN,
            )),
        })
        .collect()
}
