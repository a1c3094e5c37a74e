//! Which images and labels an input has, as far as a plan depends on it.

use crate::cli;
use crate::decode::encoded;
use crate::error::{Error, Result};
use crate::input::survey::{Sample, Survey};
use crate::input::{self, Options, SplitName};
use crate::pixels::Size;
use std::collections::BTreeMap;
use std::path::Path;

/// With fewer labelled images a held-out share could show no effect of training.
const FEWEST_LABELLED: usize = 10;

/// Images that are kept to see how long they take to decode, and their bytes.
const SAMPLES: usize = 32;
const SAMPLE_BYTES: usize = 64 << 20;

/// What an input has.
pub struct Contents {
    pub classes: Vec<String>,
    /// Height, width and channels of pixels; `None` for encoded images.
    pub shape: Option<[usize; 3]>,
    pub splits: BTreeMap<SplitName, Counts>,
    /// Whether all images are squares.
    pub squares: bool,
    /// Smaller sides of the images of `train`, in order.
    pub sides: Vec<usize>,
    /// Some image files.
    pub samples: Vec<Vec<u8>>,
    /// Images that cannot be read.
    broken: usize,
}

/// Images of a split.
#[derive(Default)]
pub struct Counts {
    pub images: usize,
    /// Of each class.
    pub labelled: Vec<usize>,
}

impl Counts {
    pub fn known(&self) -> usize {
        self.labelled.iter().sum()
    }

    /// Classes that have an image.
    pub fn classes(&self) -> usize {
        self.labelled.iter().filter(|&&images| images > 0).count()
    }
}

impl Contents {
    /// Goes through an input as `s4l-shard` does.
    pub fn read(path: &Path) -> Result<Contents> {
        let input = input::open(path, &Options::default())?;
        let survey = Survey::new(&input, u64::MAX, false)?;
        let mut contents = Contents {
            classes: survey.classes.clone(),
            shape: survey.shape,
            splits: BTreeMap::new(),
            squares: true,
            sides: Vec::new(),
            samples: Vec::new(),
            broken: 0,
        };
        let bar = cli::progress(survey.items(), "looking");
        for span in &survey.spans {
            survey.read(&input, span, &mut |sample| {
                if cli::stop_requested() {
                    return Err(Error::Interrupted { path: path.to_path_buf() });
                }
                bar.inc(1);
                contents.add(span.split, sample);
                Ok(())
            })?;
        }
        bar.finish_and_clear();
        contents.sides.sort_unstable();
        Ok(contents)
    }

    fn add(&mut self, split: SplitName, sample: Sample) {
        let image = sample.image.and_then(|image| match self.shape {
            Some([height, width, _]) => Ok((Size { height, width }, image)),
            None => encoded::check(&image).map(|size| (size, image)),
        });
        let Ok((Size { height, width }, image)) = image else {
            self.broken += 1;
            return;
        };
        self.squares &= height == width;
        let counts = self.splits.entry(split).or_default();
        counts.images += 1;
        counts.labelled.resize(self.classes.len(), 0);
        if let Some(label) = sample.label {
            counts.labelled[label as usize] += 1;
        }
        if split == SplitName::Train {
            self.sides.push(height.min(width));
            let kept: usize = self.samples.iter().map(Vec::len).sum();
            if self.samples.len() < SAMPLES && kept < SAMPLE_BYTES && self.shape.is_none() {
                self.samples.push(image);
            }
        }
    }

    /// Images of the split that is trained on.
    ///
    /// Errors: `BadData` if nothing can be learnt from them.
    pub fn training(&self, path: &Path) -> Result<&Counts> {
        let lacking = |expected: &str, found: String, hint: &str| {
            Err(Error::bad_data(path, expected, found, hint))
        };
        let Some(train) = self.splits.get(&SplitName::Train) else {
            let found = format!("only {}", self.words());
            return lacking("images to train on", found, "put some in train/, or beside test/");
        };
        let (known, classes) = (train.known(), train.classes());
        let named = |fits: &dyn Fn(usize) -> bool| {
            let names = self.classes.iter().zip(&train.labelled);
            names.filter(|(_, images)| fits(**images)).map(|(name, _)| name.clone()).collect()
        };
        if classes < 2 {
            let of: Vec<String> = named(&|images| images > 0);
            let found = match of.first() {
                Some(class) => format!("{known} images of one class, {class:?}"),
                None => format!("{} images without a label", train.images),
            };
            let hint = "put some images of each class into a folder of its name";
            return lacking("labelled images of two classes or more", found, hint);
        }
        if train.labelled.iter().all(|&images| images < 2) {
            let found = format!("one image per class, of {classes}");
            let hint = "label more; a set like this is for development of programs only";
            return lacking("several images of a class", found, hint);
        }
        if known < FEWEST_LABELLED {
            let expected = format!("at least {FEWEST_LABELLED} labelled images");
            let found = format!("{known} of {classes} classes");
            return lacking(&expected, found, "label more");
        }
        Ok(train)
    }

    /// Warns of data that make a plan less useful.
    pub fn warn(&self, path: &Path, train: &Counts) {
        let path = path.display();
        if self.broken > 0 {
            cli::warn(&format!("{path}: {} images cannot be read and are left out", self.broken));
        }
        let named = |fits: &dyn Fn(usize) -> bool| -> String {
            let pairs = self.classes.iter().zip(&train.labelled);
            let names =
                pairs.filter(|(_, images)| fits(**images)).map(|(name, _)| format!("{name:?}"));
            names.take(8).collect::<Vec<_>>().join(", ")
        };
        for (names, words) in [
            (named(&|images| images == 0), "without a labelled image to train on, never predicted"),
            (named(&|images| images == 1), "with one labelled image"),
        ] {
            if !names.is_empty() {
                cli::warn(&format!("{path}: classes {words}: {names}"));
            }
        }
        if train.images == train.known() {
            cli::warn(&format!(
                "{path}: every image has a label; MOAM is for few labels and many images"
            ));
        }
    }

    /// The images of each split, for people.
    pub fn words(&self) -> String {
        let splits = self.splits.iter().map(|(split, counts)| {
            format!(
                "{} {} images, {} labelled in {} classes",
                split.name(),
                counts.images,
                counts.known(),
                counts.classes()
            )
        });
        splits.collect::<Vec<_>>().join("; ")
    }

    /// The smaller side of the median image of `train`.
    pub fn side(&self) -> usize {
        self.sides.get(self.sides.len() / 2).copied().unwrap_or(0)
    }
}
