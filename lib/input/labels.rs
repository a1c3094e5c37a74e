//! Labels in a file of their own: a list of names and labels, or one label per line for images that are
//! numbered by name, as the ground truth of ILSVRC-2012's validation images.

use super::columns::{Columns, LabelColumn, Layout};
use super::index::Index;
use super::item::Class;
use super::list::List;
use super::matching::{Fit, Found, Images};
use super::names::{is_image_name, nfc};
use super::numbered::Numbered;
use super::splits::Splits;
use super::{hash, label, meta_mat};
use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Unmatched names that a message shows.
const SHOWN: usize = 3;
/// Marks an image without a line.
const NO_LINE: u32 = u32::MAX;

/// The content of a file of labels.
#[derive(Debug, Default)]
pub struct LabelList {
    path: PathBuf,
    /// The file that says what the ground truth of ILSVRC-2012 means, and its synsets in order.
    meta: Option<(PathBuf, Vec<String>)>,
    /// The classes of all lines, each once.
    classes: Vec<Class>,
    /// Images by the hashes of their paths. 16 bytes per image with `class_of`.
    images: Index,
    /// Which of `classes` each has.
    class_of: Vec<u32>,
    /// Where in the file the labels are.
    words: String,
}

/// Labels while they are read.
#[derive(Default)]
struct Reading {
    classes: Vec<Class>,
    numbers: HashMap<String, u32>,
}

/// A line that fits an image.
struct Line<'a> {
    number: u64,
    name: &'a str,
    class: u32,
}

impl LabelList {
    /// Labels of images.
    ///
    /// Errors: `BadData` if no line names an image or has a label, if two give one image different
    /// labels, if a name means several images, or for a label that is none.
    pub fn open(
        path: &Path,
        columns: &Columns,
        images: Images,
        splits: &Splits,
    ) -> Result<LabelList> {
        let list = List::open(path)?;
        let layout = Layout::of(&list, columns, &|name| match images.find(name) {
            Found::Image(nth, fit) => Some((nth as u64, fit.ending)),
            Found::Several(nth, _) => Some((nth as u64, false)),
            Found::Nothing => None,
        })?;
        let mut labels = LabelList::empty(path, layout.words.clone());
        labels.class_of = vec![NO_LINE; images.len()];
        let mut reading = Reading::default();
        match layout.key {
            None => labels.number(&list, &images, splits, &mut reading)?,
            Some(_) if matches!(layout.label, LabelColumn::None) => {
                let hint = "add one, or give the list alone as --in";
                return Err(bad(path, "a column of labels", "names alone".to_string(), hint));
            }
            Some(key) => labels.match_names(&list, &layout, key, &images, &mut reading)?,
        }
        labels.images = images.into_paths();
        labels.classes = reading.classes;
        labels.refuse_none()?;
        Ok(labels)
    }

    /// Labels of the images that a list names itself.
    pub fn of_listed(path: &Path, columns: &Columns) -> Result<LabelList> {
        let list = List::open(path)?;
        let layout = listed_layout(&list, columns)?;
        let mut labels = LabelList::empty(path, layout.words.clone());
        let mut reading = Reading::default();
        let mut hashes = Vec::new();
        for_each_line(&list, &layout, &mut reading, &mut |line| {
            let name = file_below(path, line.name);
            hashes.push(hash::of_name(&[&nfc(&name)]));
            labels.class_of.push(line.class);
            Ok(())
        })?;
        labels.images = Index::new(hashes);
        labels.refuse_two(&list, &layout)?;
        labels.classes = reading.classes;
        if !matches!(layout.label, LabelColumn::None) {
            labels.refuse_none()?;
        }
        Ok(labels)
    }

    fn empty(path: &Path, words: String) -> LabelList {
        LabelList { path: path.to_path_buf(), words, ..LabelList::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where in the file the labels are.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// All files that were read.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let meta = self.meta.iter().map(|(path, _)| path.clone());
        std::iter::once(self.path.clone()).chain(meta)
    }

    /// The classes of all lines, each once.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter()
    }

    /// The names of all classes, if labels are their numbers.
    pub fn given(&self) -> Option<&[String]> {
        self.meta.as_ref().map(|(_, synsets)| synsets.as_slice())
    }

    /// The class that the list gives an image, if it has it.
    pub fn class(&self, name: &str) -> Option<Class> {
        let image = self.images.all(hash::of_name(&[&nfc(name)])).next_back()?;
        self.classes.get(self.class_of[image] as usize).cloned()
    }

    fn set(&mut self, image: usize, line: &Line) -> Result<()> {
        let before = std::mem::replace(&mut self.class_of[image], line.class);
        match before == NO_LINE || before == line.class {
            true => Ok(()),
            false => Err(second(&self.path, line)),
        }
    }

    /// Errors if a list names an image twice, with two labels.
    fn refuse_two(&self, list: &List, layout: &Layout) -> Result<()> {
        let differ = |&(one, other): &(usize, usize)| self.class_of[one] != self.class_of[other];
        let Some(wrong) = self.images.repeated().filter(differ).map(|(_, other)| other).min()
        else {
            return Ok(());
        };
        let mut nth = 0;
        for_each_line(list, layout, &mut Reading::default(), &mut |line| {
            nth += 1;
            if nth > wrong { Err(second(&self.path, &line)) } else { Ok(()) }
        })
    }

    fn refuse_none(&self) -> Result<()> {
        let label = |class: &Class| *class != Class::Unknown;
        let of = |class: &u32| self.classes.get(*class as usize).is_some_and(label);
        if self.class_of.iter().any(of) {
            return Ok(());
        }
        let found = format!("none in {}", self.words);
        Err(bad(&self.path, "labels of images", found, "name their column with --label-column"))
    }

    /// Gives each image the label on the line of its number.
    fn number(
        &mut self,
        list: &List,
        images: &Images,
        splits: &Splits,
        reading: &mut Reading,
    ) -> Result<()> {
        let numbered = Numbered::read(list, images, splits)?;
        if numbered.is_ilsvrc {
            self.meta = Some(synsets(&self.path, reading)?);
        }
        for line in numbered.lines {
            let (number, name) = (line.number, images.name(line.image));
            let class = reading.class(&line.label);
            let class = class.map_err(|found| bad_label(&self.path, number, found))?;
            self.set(line.image, &Line { number, name: &name, class })?;
        }
        Ok(())
    }

    /// Gives the labels to the images that the lines name.
    fn match_names(
        &mut self,
        list: &List,
        layout: &Layout,
        key: usize,
        images: &Images,
        reading: &mut Reading,
    ) -> Result<()> {
        let ends = any_end(list, key, images)?;
        let mut matched = Matched { has_line: vec![false; images.len()], ..Matched::default() };
        let path = self.path.clone();
        for_each_line(list, layout, reading, &mut |line| {
            matched.lines += 1;
            match images.find(line.name) {
                Found::Image(nth, fit) if fit.end || !ends => {
                    matched.has_line[nth] = true;
                    self.set(nth, &line)?;
                }
                Found::Several(one, other) => {
                    let (one, other) = (images.name(one), images.name(other));
                    return Err(bad(
                        &path,
                        "names that mean one image each",
                        format!("{:?} on line {}: {one:?} or {other:?}", line.name, line.number),
                        "give the folder of the image with its name",
                    ));
                }
                _ => {
                    matched.rest += 1;
                    if matched.first.len() < SHOWN {
                        matched.first.push(line.name.to_string());
                    }
                }
            }
            Ok(())
        })?;
        matched.say(&path, &layout.words, images)?;
        if !ends {
            cli::warn(&format!(
                "{}: its names are in other folders than the images and were compared without",
                path.display()
            ));
        }
        Ok(())
    }
}

/// How many lines and images matched.
#[derive(Default)]
struct Matched {
    lines: u64,
    /// Lines that name no image, and the names of the first.
    rest: u64,
    first: Vec<String>,
    has_line: Vec<bool>,
}

impl Matched {
    /// Warns of unmatched lines and images.
    ///
    /// Errors: `BadData` if no line names an image.
    fn say(&self, path: &Path, words: &str, images: &Images) -> Result<()> {
        let Matched { lines, rest, first, has_line } = self;
        let without = (0..images.len()).filter(|&i| !has_line[i]);
        let shown: Vec<String> = without.clone().take(SHOWN).map(|i| images.name(i)).collect();
        if rest == lines {
            let found = format!("{lines} names of none{}; images{}", as_in(first), as_in(&shown));
            let hint = "name their column with --key-column";
            return Err(bad(path, format!("names of images in {words}"), found, hint));
        }
        if *rest > 0 || !shown.is_empty() {
            cli::warn(&format!(
                "{}: {} of {} images have no line{}; {rest} of {lines} lines name no image{}",
                path.display(),
                without.count(),
                images.len(),
                as_in(&shown),
                as_in(first)
            ));
        }
        Ok(())
    }
}

/// Whether a name is in the same folders as its image: names in other folders count only if there is none.
fn any_end(list: &List, key: usize, images: &Images) -> Result<bool> {
    let mut any = false;
    list.for_each(&mut |_, fields| {
        let name = fields.get(key).copied().unwrap_or_default();
        any |= matches!(images.find(name), Found::Image(_, Fit { end: true, .. }));
        Ok(())
    })?;
    Ok(any)
}

/// What the numbers of ILSVRC-2012's ground truth mean: the file that says it, and all synsets in the
/// order of their names.
fn synsets(ground_truth: &Path, reading: &mut Reading) -> Result<(PathBuf, Vec<String>)> {
    let meta = ground_truth.with_file_name("meta.mat");
    let synsets = meta_mat::read(&meta)?;
    let sorted: BTreeSet<&String> = synsets.values().collect();
    let classes: Vec<String> = sorted.into_iter().cloned().collect();
    for (id, synset) in &synsets {
        let place = classes.binary_search(synset).unwrap_or_default() as u64;
        reading.add(id.to_string(), Class::Index(place, None));
    }
    Ok((meta, classes))
}

impl Reading {
    /// The number of the class that a label means, or what is wrong with it.
    fn class(&mut self, text: &str) -> std::result::Result<u32, String> {
        if let Some(&class) = self.numbers.get(text) {
            return Ok(class);
        }
        let class = label::of_text(text);
        let name = match &class {
            Class::Bad(found) => return Err(found.clone()),
            Class::Name(name) => name.clone(),
            _ => String::new(),
        };
        let number = match self.numbers.get(&name) {
            Some(&number) => number,
            None => self.add(name, class),
        };
        self.numbers.insert(text.to_string(), number);
        Ok(number)
    }

    fn add(&mut self, name: String, class: Class) -> u32 {
        self.classes.push(class);
        let number = self.classes.len() as u32 - 1;
        self.numbers.insert(name, number);
        number
    }
}

/// Visits the lines of a list that names images.
fn for_each_line(
    list: &List,
    layout: &Layout,
    reading: &mut Reading,
    visit: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    let path = list.path();
    if let LabelColumn::OneHot(columns) = &layout.label {
        for (_, name) in columns {
            reading.class(name).map_err(|found| bad_label(path, 1, found))?;
        }
    }
    let mut rows = 0u64;
    list.for_each(&mut |number, fields| {
        rows += 1;
        if rows == 1 && layout.header {
            return Ok(());
        }
        let name = layout.key.and_then(|key| fields.get(key).copied()).unwrap_or_default();
        if name.is_empty() {
            let found = format!("none on line {number}");
            return Err(bad(path, "the name of an image in each row", found, "correct the line"));
        }
        let class = layout.label.of(fields).and_then(|text| reading.class(text));
        let class = class.map_err(|found| bad_label(path, number, found))?;
        visit(Line { number, name, class })
    })
}

/// Hands on the names of the images that a list of images has, as files below its folder.
///
/// Errors: `BadData` if none of them is a file.
pub fn listed(path: &Path, columns: &Columns, add: &mut dyn FnMut(&str)) -> Result<()> {
    let list = List::open(path)?;
    let layout = listed_layout(&list, columns)?;
    let (mut count, mut first, mut any) = (0, Vec::new(), false);
    for_each_line(&list, &layout, &mut Reading::default(), &mut |line| {
        let name = file_below(path, line.name);
        any = any || artifact::exists(&below(path, &name))?;
        add(&name);
        count += 1;
        if first.len() < SHOWN {
            first.push(name);
        }
        Ok(())
    })?;
    match any {
        true => Ok(()),
        false => Err(bad(
            path,
            "paths of images, from the folder of the list",
            format!("{count} names of no file{}", as_in(&first)),
            "name the folder of the images with --in and the list with --labels",
        )),
    }
}

/// The columns of a list that is the input itself.
fn listed_layout(list: &List, columns: &Columns) -> Result<Layout> {
    let path = list.path();
    let layout = Layout::of(list, columns, &|name| {
        let surely = is_image_name(name) || below(path, &file_below(path, name)).is_file();
        (surely && !name.is_empty()).then(|| (hash::of_name(&[name]), true))
    })?;
    match layout.key {
        Some(_) => Ok(layout),
        None => {
            let hint = "give a list of labels alone as --labels of a folder";
            Err(bad(path, "paths of images", "a list without any".to_string(), hint))
        }
    }
}

/// A name in a list of files, with slashes if only so it is one.
fn file_below(list: &Path, name: &str) -> String {
    let name = name.trim_start_matches("./");
    let slashes = name.replace('\\', "/");
    match !below(list, name).exists() && below(list, &slashes).exists() {
        true => slashes,
        false => name.to_string(),
    }
}

fn below(list: &Path, name: &str) -> PathBuf {
    list.parent().unwrap_or(Path::new("")).join(name)
}

/// A second label of an image.
fn second(path: &Path, line: &Line) -> Error {
    let found = format!("a second one for {:?} on line {}", line.name, line.number);
    bad(path, "one label for each image", found, "remove one of the lines")
}

fn bad(path: &Path, expected: impl Into<String>, found: String, hint: &str) -> Error {
    Error::bad_data(path, expected, found, hint)
}

fn bad_label(path: &Path, line: u64, found: String) -> Error {
    bad(path, "one label per row", format!("{found} on line {line}"), "correct the line")
}

/// The first of several names, for messages.
fn as_in(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<String> = names.iter().map(|n| format!("{:?}", n.as_ref())).collect();
    match shown.is_empty() {
        true => String::new(),
        false => format!(", as {}", shown.join(", ")),
    }
}
