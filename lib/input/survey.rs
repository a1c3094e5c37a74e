//! A pass over an input without its images: the classes, the keys that occur twice, and which
//! items make which file of the shards. After it, each file is a pure function of the input and its
//! place, so files can be written in any order, by any thread, in any process.

use super::Input;
use super::contradictions::Contradictions;
use super::item::{Class, Fault, Item, Position, SplitName, Stop};
use super::keys::{self, RepeatedKeys};
use super::names::nfc;
use super::seen::SeenClasses;
use super::spans::Spans;
use super::splits::{Splits, Tree};
use super::taken::Taken;
use super::unlabelled;
use crate::cli;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use super::spans::FileSpan;

/// What the pass has found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Survey {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// Height, width and channels of pixels; `None` for encoded images.
    pub shape: Option<[usize; 3]>,
    pub spans: Vec<FileSpan>,
    /// Where labels and splits came from.
    pub taken: Taken,
    /// By the composed form of the names.
    class_numbers: BTreeMap<String, u32>,
    /// Whether a number that is no class name is the index of a class.
    by_number: bool,
    /// The first class number (0 or 1), if the input does not fix it.
    first_number: u64,
    /// Whether the folders of the images are their classes.
    by_folder: bool,
    splits: Splits,
    keys: RepeatedKeys,
}

/// What one pass over the images finds.
#[derive(Default)]
struct Pass {
    seen: SeenClasses,
    tree: Tree,
    /// Hashes of the base names.
    names: Vec<u64>,
    /// Whether an image has a label that is not its folder.
    labelled: bool,
    /// Whether some image lies outside the folders without a class.
    meant: bool,
    contradictions: Contradictions,
}

/// An image with its key and label.
#[derive(Debug)]
pub struct Sample {
    /// Unique within its split: `keys`.
    pub key: String,
    /// Its position in the input.
    pub path: String,
    /// Index into `Survey::classes`; `None` if the input has no label.
    pub label: Option<u32>,
    /// The image's bytes, or why it is rejected.
    pub image: std::result::Result<Vec<u8>, String>,
}

impl Survey {
    /// Goes through the input. A file of the shards ends before the image that would bring it above
    /// `file_bytes`. Memory: 8 bytes per image, and 24 more if another image has its base name.
    ///
    /// Errors: `BadData` if there is no image, and, unless `allow_cut`, if a file of many images
    /// ends in the middle.
    pub fn new(input: &Input, file_bytes: u64, allow_cut: bool) -> Result<Survey> {
        let mut splits = input.splits.clone();
        let (pass, spans) = loop {
            let (pass, spans) = Pass::run(input, &splits, file_bytes, allow_cut)?;
            let decided = splits.decide(&pass.tree);
            if decided == splits {
                break (pass, spans);
            }
            splits = decided;
        };
        if spans.is_empty() {
            return Err(Error::bad_data(
                &input.root,
                "images",
                "none",
                "name a folder or file that holds images",
            ));
        }
        let Pass { seen, tree, names, labelled, meant, contradictions } = pass;
        input.say_folders(&splits, &tree)?;
        let again = |visit: &mut dyn FnMut(Item) -> Result<()>| scan(input, &splits, visit);
        let keys = RepeatedKeys::find(input, &splits, &again, names)?;
        let by_number = input.classes.is_some() && seen.are_numbers();
        let by_folder = seen.are_folders(input)?;
        if !(labelled || by_folder && seen.has_folders()) {
            unlabelled::check(input, &splits, !meant)?;
        }
        contradictions.say(input);
        // Likewise in an archive whose images all lie in folders of one name: these folders are no classes,
        // but those above may be.
        if by_folder || input.labels.is_none() && seen.are_nothing_else() {
            input.refuse_unclear(&splits)?;
        }
        let first_number = seen.first();
        let classes = match &input.classes {
            Some(classes) => classes.clone(),
            None => seen.list(&input.root, by_folder)?,
        };
        let numbers = classes.iter().enumerate();
        let class_numbers = numbers.map(|(i, c)| (nfc(c).into_owned(), i as u32)).collect();
        let found = spans.iter().map(|span| span.split).collect();
        Ok(Survey {
            taken: Taken::of(input, &found, &splits, &tree, !classes.is_empty(), by_folder),
            classes,
            shape: input.shape(),
            spans,
            class_numbers,
            by_number,
            first_number,
            by_folder,
            splits,
            keys,
        })
    }

    /// Splits that have images, with their numbers of items.
    pub fn splits(&self) -> BTreeMap<SplitName, u64> {
        let mut splits = BTreeMap::new();
        for span in &self.spans {
            *splits.entry(span.split).or_default() += span.items;
        }
        splits
    }

    /// Number of all items.
    pub fn items(&self) -> u64 {
        self.spans.iter().map(|s| s.items).sum()
    }

    /// Reads the items of a span in order.
    ///
    /// Errors: those of `visit`, and `BadData` if the input has fewer items than it had.
    pub fn read(
        &self,
        input: &Input,
        span: &FileSpan,
        visit: &mut dyn FnMut(Sample) -> Result<()>,
    ) -> Result<()> {
        let (mut skip, mut nth) = (span.skip, span.first);
        let end = span.first + span.items;
        input.walk(&self.splits, span.start, true, &mut |item| {
            if item.split != span.split {
                return Ok(());
            }
            if skip > 0 {
                skip -= 1;
                return Ok(());
            }
            visit(self.sample(input, item, nth))?;
            nth += 1;
            if nth == end { Err(Stop::Enough) } else { Ok(()) }
        })?;
        if nth < end {
            return Err(Error::bad_data(
                &input.root,
                format!("{} images, as when it was first read", span.items),
                format!("{}", nth - span.first),
                "do not change the input while it is read",
            ));
        }
        Ok(())
    }

    /// `nth`: the number of the item in its split.
    fn sample(&self, input: &Input, item: Item, nth: u64) -> Sample {
        let class = input.class(&item);
        let (key, first) = self.keys.key(input, &self.splits, &item);
        let mut image = item.image.map_err(|fault| match fault {
            Fault::Image(what) | Fault::Cut(what) => what,
        });
        let label = match self.label(class) {
            Ok(label) => label,
            Err(what) => {
                image = image.and(Err(what));
                None
            }
        };
        if first.is_some_and(|first| first < nth) {
            image = image.and(Err("a key that an earlier image has".to_string()));
        }
        Sample { key, path: item.name, label, image }
    }

    fn label(&self, class: Class) -> std::result::Result<Option<u32>, String> {
        let number = |name: &str| name.parse().ok().filter(|&n| n < self.classes.len() as u32);
        let numbered = |name: String| match self.class_numbers.get(&*nfc(&name)) {
            Some(&number) => Ok(Some(number)),
            None if self.by_number && number(&name).is_some() => Ok(number(&name)),
            None => Err(format!("class {name:?}, which is outside of the class list")),
        };
        match class {
            Class::Unknown => Ok(None),
            Class::Folder(_) if !self.by_folder => Ok(None),
            Class::Folder(name) | Class::Name(name) => numbered(name),
            Class::Index(number, _) => self.counted(number, 0),
            Class::Counted(number, _) => self.counted(number, self.first_number),
            Class::Bad(found) => Err(found),
        }
    }
}

impl Survey {
    /// The class of a number that counts from `first`.
    fn counted(&self, number: u64, first: u64) -> std::result::Result<Option<u32>, String> {
        let classes = self.classes.len() as u64;
        match number.checked_sub(first).filter(|&n| n < classes) {
            Some(number) => Ok(Some(number as u32)),
            None => Err(format!("label {number}, outside of {classes} classes")),
        }
    }
}

impl Pass {
    /// Goes through the input, with what is known about its splits.
    fn run(
        input: &Input,
        splits: &Splits,
        file_bytes: u64,
        allow_cut: bool,
    ) -> Result<(Pass, Vec<FileSpan>)> {
        let contradictions = Contradictions::new(input);
        let mut pass = Pass { contradictions, ..Pass::default() };
        let mut spans = Spans::new(file_bytes);
        if let Some(labels) = &input.labels {
            labels.classes().for_each(|class| pass.seen.add(class.clone()));
        }
        scan(input, splits, &mut |item| {
            if !allow_cut {
                refuse_cut(input, &item)?;
            }
            spans.add(&item);
            pass.names.push(keys::of_base_name(&item));
            let class = input.class(&item);
            pass.contradictions.add(input, &item, &class);
            pass.labelled |= class.is_label();
            pass.meant = pass.meant || pass.labelled || !splits.is_apart(&item.name);
            pass.seen.add(class);
            if input.has_folders() {
                pass.tree.add(&item.name);
            }
            Ok(())
        })?;
        Ok((pass, spans.finish()))
    }
}

/// Visits all items, without their images.
fn scan(input: &Input, splits: &Splits, visit: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
    input.walk(splits, Position::default(), false, &mut |item| {
        if cli::stop_requested() {
            let path = input.root.clone();
            return Err(Error::Interrupted { path }.into());
        }
        Ok(visit(item)?)
    })
}

fn refuse_cut(input: &Input, item: &Item) -> Result<()> {
    let Err(Fault::Cut(found)) = &item.image else {
        return Ok(());
    };
    Err(Error::bad_data(
        &input.root,
        "complete files",
        format!("{:?}: {found}", item.name),
        "copy it again, or keep the images before the damage with --allow-rejects 1",
    ))
}
