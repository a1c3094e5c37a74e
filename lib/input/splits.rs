//! Which split and class an image has by the folders that it lies in, and which split a file of many
//! images has by its name. A name alone does not decide: `train` beside `test` is a split, beside `bus`
//! and `car` it is a class. So all folders of one folder are decided together.

use super::item::{Class, SplitName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folders beside class folders, or beside splits, whose images have no class.
const UNLABELLED: [&str; 3] = ["unlabeled", "unlabelled", "unsup"];

/// The split that a word names. `held_out`: the split for words that can mean validation or test.
fn of_word(word: &str, held_out: SplitName) -> Option<SplitName> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(SplitName::Train),
        "val" | "valid" | "validation" => Some(SplitName::Val),
        "test" | "testing" => Some(SplitName::Test),
        "dev" | "eval" | "evaluation" => Some(held_out),
        _ => None,
    }
}

/// The meaning of `dev`, `eval` and `evaluation`: the test set, unless there is one beside them.
fn held_out<'a>(mut words: impl Iterator<Item = &'a str>) -> SplitName {
    let is_test = |word: &str| ["test", "testing"].contains(&word.to_ascii_lowercase().as_str());
    if words.any(is_test) { SplitName::Val } else { SplitName::Test }
}

/// The split of each file of a folder: the first word of its name that names one, else train. What
/// ILSVRC-2012 calls validation is the test set of S4L.
pub fn of_files<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<SplitName> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = paths.map(name).collect();
    let words = |name: &'_ str| -> Vec<String> {
        name.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_string).collect()
    };
    let all: Vec<Vec<String>> = names.iter().map(|name| words(name)).collect();
    let held_out = held_out(all.iter().flatten().map(String::as_str));
    let split = |(name, words): (&String, &Vec<String>)| match name {
        name if name.starts_with("ILSVRC2012_img_val") => SplitName::Test,
        _ => words.iter().find_map(|w| of_word(w, held_out)).unwrap_or(SplitName::Train),
    };
    names.iter().zip(&all).map(split).collect()
}

/// The folders that images lie in.
#[derive(Debug, Default)]
pub struct Tree {
    /// Folders by the path of the one above.
    folders: BTreeMap<String, BTreeSet<String>>,
    last: String,
}

impl Tree {
    /// Adds the folders of an image.
    pub fn add(&mut self, name: &str) {
        let Some((folders, _)) = name.rsplit_once('/') else {
            return;
        };
        if folders == self.last {
            return;
        }
        self.last = folders.to_string();
        for (above, folder) in steps(folders) {
            let beside = self.folders.entry(above.to_string()).or_default();
            if !beside.contains(folder) {
                beside.insert(folder.to_string());
            }
        }
    }

    /// Whether a folder has this name.
    pub fn has(&self, name: &str) -> bool {
        self.folders.values().any(|beside| beside.contains(name))
    }

    /// Names of folders, for people.
    pub fn names(&self) -> BTreeSet<&str> {
        self.folders.values().flatten().map(String::as_str).collect()
    }
}

/// Each folder of a path with the path above it.
fn steps(folders: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = folders.match_indices('/').map(|(at, _)| at).chain([folders.len()]);
    let mut start = 0;
    ends.map(move |end| {
        let step = (&folders[..start.max(1) - 1], &folders[start..end]);
        start = end + 1;
        step
    })
}

fn join(above: &str, folder: &str) -> String {
    match above {
        "" => folder.to_string(),
        above => format!("{above}/{folder}"),
    }
}

/// The meaning of the folders of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Whether those that are named as splits are.
    pub splits: bool,
    held_out: SplitName,
}

impl Beside {
    /// Folders that were not seen together.
    const UNSEEN: Beside = Beside { splits: true, held_out: SplitName::Test };
}

/// Which folders are splits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits {
    /// One more name of folders whose images have no class, and word in that of files without labels.
    unlabelled: Option<String>,
    /// By the path of the folder above, unless `Beside::UNSEEN`.
    beside: BTreeMap<String, Beside>,
}

/// Split and class by the path of an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub split: SplitName,
    pub class: Class,
    /// The path of the folder that is the split.
    pub split_folder: Option<&'a str>,
}

/// Whether a path contains a name as a whole word.
pub fn has_word(path: &str, name: &str) -> bool {
    path.match_indices(name).any(|(at, _)| {
        let beside = [path[..at].chars().next_back(), path[at + name.len()..].chars().next()];
        !beside.into_iter().flatten().any(char::is_alphanumeric)
    })
}

impl Splits {
    pub fn new(unlabelled: Option<&str>) -> Splits {
        Splits { unlabelled: unlabelled.map(str::to_string), beside: BTreeMap::new() }
    }

    /// The name of folders whose images are said to have no class.
    pub fn unlabelled(&self) -> Option<&str> {
        self.unlabelled.as_deref()
    }

    /// Decided over all folders of an input.
    pub fn decide(&self, tree: &Tree) -> Splits {
        let decided = tree.folders.iter().map(|(path, folders)| {
            let folders = folders.iter().map(|f| {
                let has_folders = tree.folders.contains_key(&join(path, f));
                (f.as_str(), has_folders)
            });
            (path.clone(), self.beside(&folders.collect::<Vec<_>>()))
        });
        let beside = decided.filter(|(_, beside)| *beside != Beside::UNSEEN).collect();
        Splits { unlabelled: self.unlabelled.clone(), beside }
    }

    /// How the folders of one folder are to be taken; with each, whether it has folders. One that has
    /// holds classes, so it is none.
    pub fn beside(&self, folders: &[(&str, bool)]) -> Beside {
        let named = |folder: &str| of_word(folder, SplitName::Test).is_some();
        let splits = folders.iter().any(|(f, has_folders)| named(f) && *has_folders)
            || folders.iter().all(|(f, _)| named(f) || self.is_unlabelled(f));
        match folders.iter().any(|(f, _)| named(f)) {
            true => Beside { splits, held_out: held_out(folders.iter().map(|(f, _)| *f)) },
            false => Beside::UNSEEN,
        }
    }

    /// The classes that are named as splits, each with the folder above.
    pub fn classes_named_as_splits<'a>(&'a self, tree: &'a Tree) -> Vec<(&'a str, &'a str)> {
        let classes = self.beside.iter().filter(|(_, beside)| !beside.splits);
        let named = |folder: &&String| of_word(folder, SplitName::Test).is_some();
        classes
            .flat_map(|(path, _)| {
                let folders = tree.folders[path].iter().filter(named);
                folders.map(|folder| (path.as_str(), folder.as_str()))
            })
            .collect()
    }

    /// The folders that are splits.
    pub fn folders<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = (SplitName, String)> + 'a {
        let paths = tree
            .folders
            .iter()
            .flat_map(|(above, folders)| folders.iter().map(move |folder| join(above, folder)));
        paths.filter_map(|path| {
            let image = format!("{path}/");
            let place = self.place(&image, SplitName::Train);
            (place.split_folder == Some(path.as_str())).then_some((place.split, path))
        })
    }

    /// The split that a folder is.
    pub fn of_folder(&self, above: &str, folder: &str) -> Option<SplitName> {
        let beside = self.beside.get(above).copied().unwrap_or(Beside::UNSEEN);
        of_word(folder, beside.held_out).filter(|_| beside.splits)
    }

    /// Whether the images of a folder of this name have no class.
    pub fn is_unlabelled(&self, folder: &str) -> bool {
        UNLABELLED.contains(&folder.to_ascii_lowercase().as_str())
            || self.unlabelled.as_deref() == Some(folder)
    }

    /// Whether an image lies in such a folder.
    pub fn is_apart(&self, name: &str) -> bool {
        name.split('/').rev().skip(1).any(|folder| self.is_unlabelled(folder))
    }

    /// Whether a word of a path is such a name.
    pub fn is_unlabelled_file(&self, path: &str) -> bool {
        path.split(|c: char| !c.is_ascii_alphabetic()).any(|word| self.is_unlabelled(word))
            || self.unlabelled.as_deref().is_some_and(|name| has_word(path, name))
    }

    /// Split and class of an image by its path: `[<split>/][<class>/]<image>`, whatever folders are
    /// above. `file`: the split if no folder is one.
    pub fn place<'a>(&self, name: &'a str, file: SplitName) -> Place<'a> {
        let mut place = Place { split: file, class: Class::Unknown, split_folder: None };
        let Some((folders, _)) = name.rsplit_once('/') else {
            return place;
        };
        let mut class = None;
        for (above, folder) in steps(folders) {
            let split = self.of_folder(above, folder).filter(|_| place.split_folder.is_none());
            if let Some(split) = split {
                place.split = split;
                let end = folder.as_ptr() as usize - name.as_ptr() as usize + folder.len();
                place.split_folder = Some(&name[..end]);
                class = None;
            } else if self.is_unlabelled(folder) {
                return place;
            } else {
                class = Some(folder);
            }
        }
        if let Some(class) = class {
            place.class = Class::Folder(class.to_string());
        }
        place
    }

    /// The path that tells images of one base name apart: without the folder of the split.
    pub fn without_split<'a>(&self, name: &'a str) -> &'a str {
        match self.place(name, SplitName::Train).split_folder {
            Some(folder) if !folder.contains('/') => &name[folder.len() + 1..],
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(names: &[&str]) -> Splits {
        let mut tree = Tree::default();
        names.iter().for_each(|name| tree.add(name));
        Splits::new(Some("extra")).decide(&tree)
    }

    #[test]
    fn a_folder_is_a_split_by_what_lies_beside_it() {
        use SplitName::{Test, Train, Val};
        let place = |names: &[&str], name: &'static str| {
            let place = decided(names).place(name, Train);
            let class = match place.class {
                Class::Folder(class) => class,
                _ => String::new(),
            };
            (place.split, class)
        };
        let of = |split, class: &str| (split, class.to_string());
        let two = ["set/train/bag/1.png", "set/test/bag/1.png"];
        assert_eq!(place(&two, "set/test/bag/1.png"), of(Test, "bag"));
        let vehicles = ["bus/1.png", "car/1.png", "train/1.png"];
        assert_eq!(place(&vehicles, "train/1.png"), of(Train, "train"));
        let documents = ["invalid/1.png", "valid/1.png"];
        assert_eq!(place(&documents, "valid/1.png"), of(Train, "valid"));
        let below = ["Training/train/1.png", "Training/bus/1.png", "Testing/train/1.png"];
        assert_eq!(place(&below, "Testing/train/1.png"), of(Test, "train"));
        let three = ["train/a/1.png", "dev/a/1.png", "test/a/1.png"];
        assert_eq!(place(&three, "dev/a/1.png"), of(Val, "a"));
        assert_eq!(place(&three[..2], "dev/a/1.png"), of(Test, "a"));
        assert_eq!(place(&["train/1.png"], "train/1.png"), of(Train, ""));
        let unsup = ["train/a/1.png", "unsup/2.png", "extra/x/3.png"];
        assert_eq!(place(&unsup, "unsup/2.png"), of(Train, ""));
        assert_eq!(place(&unsup, "extra/x/3.png"), of(Train, ""));
    }

    #[test]
    fn the_split_of_a_file_is_a_word_of_its_name() {
        use SplitName::{Test, Train, Val};
        let splits = |names: &[&str]| of_files(names.iter().map(Path::new));
        assert_eq!(splits(&["Training-0.tar", "testing-0.tar"]), [Train, Test]);
        assert_eq!(splits(&["x-dev-0", "x-train-0", "latest.tar"]), [Test, Train, Train]);
        assert_eq!(splits(&["dev.tar", "test.tar", "ILSVRC2012_img_val.tar"]), [Val, Test, Test]);
    }
}
