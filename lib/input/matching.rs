//! Finding images by the names that a list has for them: with more or fewer folders, with or without
//! the ending of the file, composed in one way or the other.

use super::hash;
use super::names::{base_name, is_image_name, nfc, stem};
use std::collections::HashMap;

/// The images of an input by their names.
#[derive(Debug, Default)]
pub struct Images {
    /// Paths in the input, composed, one after the other.
    text: String,
    ends: Vec<usize>,
    /// Images by the hash of their paths.
    by_path: HashMap<u64, u32>,
    /// The last image of each stem, by its hash; of each image, the one before of the same hash.
    by_stem: HashMap<u64, u32>,
    before: Vec<u32>,
}

const NONE: u32 = u32::MAX;

/// What a name finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// An image, and how well the name fits.
    Image(usize, Fit),
    /// Several that fit alike, with two of them.
    Several(usize, usize),
    Nothing,
}

/// How well a name fits, from the worst on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// Whether it is the path in the input.
    pub whole: bool,
    /// Whether one of both paths is the end of the other, but for the ending of the file.
    pub end: bool,
    /// Whether the names of the files are equal with their endings.
    pub ending: bool,
    /// Folders in common, from the last on.
    folders: usize,
}

impl Images {
    pub fn add(&mut self, name: &str) {
        let name = nfc(name);
        let nth = self.ends.len() as u32;
        self.text.push_str(&name);
        self.ends.push(self.text.len());
        self.by_path.insert(hash::of_name(&[&name]), nth);
        let before = self.by_stem.insert(key(&name), nth);
        self.before.push(before.unwrap_or(NONE));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The path of an image, composed.
    pub fn name(&self, nth: usize) -> &str {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[nth]]
    }

    /// The image that a name in a list means. A backslash is a slash where that finds one.
    pub fn find(&self, name: &str) -> Found {
        let name = nfc(name.trim_start_matches("./"));
        match self.find_path(&name) {
            Found::Nothing if name.contains('\\') => self.find_path(&name.replace('\\', "/")),
            found => found,
        }
    }

    fn find_path(&self, name: &str) -> Found {
        if let Some(&nth) = self.by_path.get(&hash::of_name(&[name]))
            && let Some(fit) = fit(name, self.name(nth as usize)).filter(|fit| fit.whole)
        {
            return Found::Image(nth as usize, fit);
        }
        let bare = !name.contains('/');
        let mut found = Found::Nothing;
        let mut next = self.by_stem.get(&key(name)).copied().unwrap_or(NONE);
        while next != NONE {
            let nth = next as usize;
            next = self.before[nth];
            let Some(fit) = fit(name, self.name(nth)) else {
                continue;
            };
            found = match found {
                Found::Image(_, best) if best > fit => found,
                Found::Image(first, best) if best == fit => Found::Several(nth, first),
                Found::Several(one, other) => match self.fit_of(name, one) {
                    Some(best) if best >= fit => Found::Several(one, other),
                    _ => Found::Image(nth, fit),
                },
                _ => Found::Image(nth, fit),
            };
            // Of a name that each class has, no image fits better than these.
            let best = bare && (fit.ending || !is_image_name(name));
            if best && matches!(found, Found::Several(..)) {
                break;
            }
        }
        found
    }

    fn fit_of(&self, name: &str, nth: usize) -> Option<Fit> {
        fit(name, self.name(nth))
    }
}

fn key(name: &str) -> u64 {
    hash::of_name(&[stem(base_name(name))])
}

/// How well a name fits the path of an image; `None` if the files have other names.
fn fit(name: &str, path: &str) -> Option<Fit> {
    if stem(base_name(name)) != stem(base_name(path)) {
        return None;
    }
    let folders = |path: &str| path.split('/').rev().skip(1).count();
    let same = name.split('/').rev().skip(1).zip(path.split('/').rev().skip(1));
    let common = same.take_while(|(a, b)| a == b).count();
    Some(Fit {
        whole: name == path,
        end: common == folders(name).min(folders(path)),
        ending: base_name(name) == base_name(path),
        folders: common,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_images_as_people_write_them() {
        let mut images = Images::default();
        for name in
            ["a/1.png", "b/1.png", "2.JPEG", "c/d/3.png", "4.jpg", "4.png", "cafe\u{301}.png"]
        {
            images.add(name);
        }
        let found = |name: &str| match images.find(name) {
            Found::Image(nth, fit) => Some((images.name(nth).to_string(), fit.end)),
            Found::Several(..) => Some(("several".to_string(), false)),
            Found::Nothing => None,
        };
        for (name, expected, end) in [
            ("a/1.png", "a/1.png", true),
            ("/data/b/1", "b/1.png", true),
            ("b\\1.png", "b/1.png", true),
            ("1.png", "several", false),
            ("x/1.png", "several", false),
            ("./2", "2.JPEG", true),
            ("val/2.jpg", "2.JPEG", true),
            ("d/3.png", "c/d/3.png", true),
            ("e/3.png", "c/d/3.png", false),
            ("4.png", "4.png", true),
            ("4", "several", false),
            ("caf\u{e9}", "caf\u{e9}.png", true),
        ] {
            assert_eq!(found(name), Some((expected.to_string(), end)), "{name}");
        }
        assert_eq!(found("5.png"), None);
    }
}
