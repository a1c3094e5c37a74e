//! Images to which a list of labels gives another class than the folder that they lie in.

use super::Input;
use super::item::{Class, Item};
use super::names::nfc;
use crate::cli;
use std::collections::HashSet;

/// Names that a message shows.
const SHOWN: usize = 3;

/// A count of the differences between list and folders.
#[derive(Debug, Default)]
pub struct Contradictions {
    /// The composed names of the classes.
    known: HashSet<String>,
    count: u64,
    /// The first of them, in words.
    first: Vec<String>,
}

impl Contradictions {
    /// Without a list there are none.
    pub fn new(input: &Input) -> Contradictions {
        let Some(labels) = &input.labels else {
            return Contradictions::default();
        };
        let composed = |name: &String| nfc(name).into_owned();
        let known = match &input.classes {
            Some(given) => given.iter().map(composed).collect(),
            None => labels.classes().filter_map(Class::name).map(composed).collect(),
        };
        Contradictions { known, ..Contradictions::default() }
    }

    /// `class`: what the list says, or else the folder.
    pub fn add(&mut self, input: &Input, item: &Item, class: &Class) {
        let Class::Folder(folder) = &item.class else {
            return;
        };
        // A folder that has no name of a class is none of another one.
        if self.known.is_empty() || !self.known.contains(&*nfc(folder)) {
            return;
        }
        let given = |number: usize| input.classes.as_ref()?.get(number);
        let named = match class {
            Class::Name(name) if self.known.contains(&*nfc(name)) => Some(name),
            Class::Name(name) => name.parse().ok().and_then(given),
            Class::Index(number, _) => given(*number as usize),
            _ => None,
        };
        let Some(named) = named.filter(|named| nfc(named) != nfc(folder)) else {
            return;
        };
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(format!("{:?} as {named:?}", item.name));
        }
    }

    /// Says how many there are, and that the list decides.
    pub fn say(&self, input: &Input) {
        if let Some(labels) = input.labels.as_ref().filter(|_| self.count > 0) {
            cli::warn(&format!(
                "{}: {} images have another class than that of their folder; the list \
                 decides: {}",
                labels.path().display(),
                self.count,
                self.first.join(", ")
            ));
        }
    }
}
