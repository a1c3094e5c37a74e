//! Which column of a list has the names of the images, and which the labels: by the options, by the names
//! of the columns, and by their content.

use super::list::List;
use super::names::is_image_name;
use crate::error::{Error, Result};
use std::collections::HashSet;

/// Names of columns, without case and marks, the likeliest first.
const KEYS: [&str; 22] = [
    "image",
    "filename",
    "filenames",
    "imagename",
    "file",
    "path",
    "filepath",
    "filepaths",
    "imagepath",
    "imagefile",
    "imagefilename",
    "imageid",
    "idcode",
    "imgid",
    "imgname",
    "img",
    "images",
    "fname",
    "name",
    "key",
    "id",
    "uuid",
];
const LABELS: [&str; 9] = [
    "label",
    "labels",
    "class",
    "classname",
    "category",
    "categoryname",
    "target",
    "classes",
    "synset",
];
/// Names that mean the label only if the list has just one of them.
const MAYBE_LABELS: [&str; 14] = [
    "breed",
    "diagnosis",
    "dx",
    "species",
    "cats",
    "classid",
    "labelid",
    "categoryid",
    "targets",
    "y",
    "groundtruth",
    "gt",
    "scientificname",
    PREDICTION,
];
/// ImageNet's `LOC_*_solution.csv`: a class, a box, a class, a box.
const PREDICTION: &str = "predictionstring";

/// Images that are counted in a column, to know which column names the most.
const MOST_SEEN: usize = 1 << 16;

/// The columns that the options name.
#[derive(Debug, Default)]
pub struct Columns {
    pub key: Option<String>,
    pub label: Option<String>,
}

/// The columns of a list and their meaning.
#[derive(Debug)]
pub struct Layout {
    /// Whether the first row says what the columns are.
    pub header: bool,
    /// `None` if the list has labels only.
    pub key: Option<usize>,
    pub label: LabelColumn,
    /// Description for users.
    pub words: String,
}

/// The place of a row's label.
#[derive(Debug)]
pub enum LabelColumn {
    None,
    At(usize),
    /// Its first word.
    FirstWord(usize),
    /// The name of the one column that is 1.
    OneHot(Vec<(usize, String)>),
}

/// What a value names: an image, by a number of ours, and whether it is surely one.
pub type Names<'a> = &'a dyn Fn(&str) -> Option<(u64, bool)>;

/// What is in a list.
#[derive(Default)]
struct Seen {
    first: Vec<String>,
    columns: Vec<SeenColumn>,
}

/// What is in a column below the first row.
#[derive(Default, Clone)]
struct SeenColumn {
    surely: HashSet<u64>,
    named: HashSet<u64>,
    others_than_01: bool,
}

impl Seen {
    fn new(list: &List, names: Names) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut rows = 0;
        list.for_each(&mut |_, fields| {
            rows += 1;
            if rows == 1 {
                seen.first = fields.iter().map(|f| f.to_string()).collect();
                seen.columns.resize(fields.len(), SeenColumn::default());
                return Ok(());
            }
            for (column, field) in seen.columns.iter_mut().zip(fields) {
                column.add(field, names);
            }
            Ok(())
        })?;
        Ok(seen)
    }

    /// Takes the first row as one of the others.
    fn add_first(&mut self, names: Names) {
        for (column, field) in self.columns.iter_mut().zip(&self.first) {
            column.add(field, names);
        }
    }
}

impl SeenColumn {
    fn add(&mut self, field: &str, names: Names) {
        if let Some((image, surely)) = names(field) {
            // More would take memory and add nothing.
            let insert = |set: &mut HashSet<u64>| set.len() < MOST_SEEN && set.insert(image);
            insert(&mut self.named);
            if surely {
                insert(&mut self.surely);
            }
        }
        self.others_than_01 |= !["0", "1", "0.0", "1.0"].contains(&field);
    }
}

impl Layout {
    /// Errors: `BadData` that lists the columns if their meaning is ambiguous.
    pub fn of(list: &List, given: &Columns, names: Names) -> Result<Layout> {
        let mut seen = Seen::new(list, names)?;
        let header = is_header(&seen.first, given, names);
        if !header {
            seen.add_first(names);
        }
        let columns = Found { list, header, seen: &seen };
        let Some(key) = columns.key(given)? else {
            let words = format!("the lines of {}", columns.file());
            return Ok(Layout { header, key: None, label: LabelColumn::None, words });
        };
        let label = columns.label(given, key)?;
        let words = match &label {
            LabelColumn::None => "none".to_string(),
            LabelColumn::At(at) | LabelColumn::FirstWord(at) => {
                let (key, label) = (columns.name(key), columns.name(*at));
                format!("column {label} of {}, by column {key}", columns.file())
            }
            LabelColumn::OneHot(of) => {
                let (key, of) = (columns.name(key), of.len());
                format!("{of} columns of 0 and 1 of {}, by column {key}", columns.file())
            }
        };
        Ok(Layout { header, key: Some(key), label, words })
    }
}

/// Whether the first row says what the columns are: it has a name that they have, or nothing that names
/// an image nor any number.
fn is_header(first: &[String], given: &Columns, names: Names) -> bool {
    let said = [&given.key, &given.label].into_iter().flatten();
    if said.into_iter().any(|name| first.contains(name)) {
        return true;
    }
    let is_name = |field: &String| names(field).is_some() || is_image_name(field);
    let known = |field: &&String| KEYS.contains(&&*bare(field)) && !is_name(field);
    let number = |field: &String| field.parse::<f64>().is_ok();
    first.iter().any(|f| known(&f)) || !first.iter().any(|f| is_name(f) || number(f))
}

/// The name of a column without case and marks.
fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a column of this name holds labels.
pub fn is_label(name: &str) -> bool {
    let name = &*bare(name);
    LABELS.contains(&name) || MAYBE_LABELS.contains(&name)
}

/// The columns of a list.
struct Found<'a> {
    list: &'a List,
    header: bool,
    seen: &'a Seen,
}

impl Found<'_> {
    fn file(&self) -> String {
        self.list.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What a column is called, for people.
    fn name(&self, at: usize) -> String {
        match self.header {
            true => format!("{:?}", self.seen.first[at]),
            false => (at + 1).to_string(),
        }
    }

    /// The error if the meaning of the columns is ambiguous.
    fn bad(&self, expected: &str, hint: &str) -> Error {
        let first: Vec<String> =
            self.seen.first.iter().take(12).map(|f| format!("{f:?}")).collect();
        let more = if self.seen.first.len() > 12 { ", .." } else { "" };
        let what = if self.header { "columns" } else { "a first line of" };
        let found = format!("{what} {}{more}", first.join(", "));
        Error::bad_data(self.list.path(), expected, found, hint)
    }

    /// The column that an option names, by its name or its number from 1.
    fn said(&self, option: &str, name: &str) -> Result<usize> {
        let first = &self.seen.first;
        let by_name = first.iter().position(|f| self.header && f == name);
        let by_name =
            by_name.or_else(|| first.iter().position(|f| self.header && bare(f) == bare(name)));
        let number = name.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        by_name
            .or(number.filter(|&at| at < first.len()))
            .ok_or_else(|| self.bad(&format!("a column {name:?}"), &format!("correct {option}")))
    }

    /// The column of names, `None` if the list has only labels.
    fn key(&self, given: &Columns) -> Result<Option<usize>> {
        if let Some(name) = &given.key {
            return self.said("--key-column", name).map(Some);
        }
        let known = |at: usize| {
            let name = bare(&self.seen.first[at]);
            KEYS.iter().position(|k| self.header && *k == name).map_or(0, |k| KEYS.len() - k)
        };
        // A list of only labels may be of numbers that are also names of images.
        let alone = self.seen.first.len() == 1;
        let names = |c: &SeenColumn| !c.surely.is_empty() || !c.named.is_empty() && !alone;
        let columns = self.seen.columns.iter().enumerate();
        let named = columns.filter(|(_, c)| names(c)).max_by_key(|(at, c)| {
            let surely = c.surely.len();
            (surely > 0, known(*at), surely, c.named.len(), usize::MAX - at)
        });
        let by_header = (0..self.seen.first.len()).filter(|&at| known(at) > 0);
        let found = named.map(|(at, _)| at).or_else(|| by_header.max_by_key(|&at| known(at)));
        match found {
            Some(at) => Ok(Some(at)),
            None if self.list.may_be_lines() => Ok(None),
            None => Err(self.bad("names of images in a column", "name it with --key-column")),
        }
    }

    fn label(&self, given: &Columns, key: usize) -> Result<LabelColumn> {
        if let Some(name) = &given.label {
            return self.said("--label-column", name).map(LabelColumn::At);
        }
        let others: Vec<usize> = (0..self.seen.first.len()).filter(|&at| at != key).collect();
        if !self.header {
            return Ok(others.first().map_or(LabelColumn::None, |&at| LabelColumn::At(at)));
        }
        let bare_name = |at: usize| bare(&self.seen.first[at]);
        let likeliest = |at: &&usize| LABELS.iter().position(|l| *l == bare_name(**at));
        let known = others.iter().filter(|at| likeliest(at).is_some());
        if let Some(&at) = known.min_by_key(|at| likeliest(at)) {
            return Ok(LabelColumn::At(at));
        }
        let maybe = others.iter().filter(|&&at| MAYBE_LABELS.contains(&&*bare_name(at)));
        match (maybe.copied().collect::<Vec<_>>().as_slice(), others.as_slice()) {
            (&[at], _) if bare_name(at) == PREDICTION => Ok(LabelColumn::FirstWord(at)),
            (&[at], _) | (_, &[at]) => Ok(LabelColumn::At(at)),
            (_, []) => Ok(LabelColumn::None),
            (_, others) if others.iter().all(|&at| !self.seen.columns[at].others_than_01) => {
                let names = others.iter().map(|&at| (at, self.seen.first[at].clone()));
                Ok(LabelColumn::OneHot(names.collect()))
            }
            _ => Err(self.bad("one column that is the label", "name it with --label-column")),
        }
    }
}

impl LabelColumn {
    /// The label of a row, empty if it has none.
    ///
    /// Errors: of columns of 0 and 1, what is 1 if that is not one column.
    pub fn of<'a>(&'a self, fields: &[&'a str]) -> std::result::Result<&'a str, String> {
        let field = |at: &usize| fields.get(*at).copied().unwrap_or_default();
        match self {
            LabelColumn::None => Ok(""),
            LabelColumn::At(at) => Ok(field(at)),
            LabelColumn::FirstWord(at) => Ok(field(at).split(' ').next().unwrap_or_default()),
            LabelColumn::OneHot(columns) => {
                let ones = columns.iter().filter(|(at, _)| field(at).starts_with('1'));
                match ones.map(|(_, name)| name.as_str()).collect::<Vec<_>>().as_slice() {
                    [one] => Ok(one),
                    [] => Err("no column that is 1".to_string()),
                    several => Err(format!("several that are 1: {}", several.join(", "))),
                }
            }
        }
    }
}
