//! Finds images by the names in a list: with more or fewer folders, with or without the file ending, in
//! either Unicode composition.

use super::hash;
use super::index::Index;
use super::names::{base_name, is_image_name, nfc, stem};
use std::borrow::Cow;

/// The path of an image in the input, by its number.
type Name<'a> = Box<dyn Fn(usize) -> String + 'a>;

/// The images of an input by their names, which are not copied.
pub struct Images<'a> {
    count: usize,
    name: Name<'a>,
    /// By the hashes of their paths, composed.
    by_path: Index,
    /// By those of their base names without the ending.
    by_stem: Index,
}

/// The result of looking up a name.
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

impl<'a> Images<'a> {
    pub fn new(count: usize, name: Name<'a>) -> Images<'a> {
        let (mut paths, mut stems) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for nth in 0..count {
            let name = composed(name(nth));
            paths.push(hash::of_name(&[&name]));
            stems.push(key(&name));
        }
        Images { count, name, by_path: Index::new(paths), by_stem: Index::new(stems) }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The path of an image, composed.
    pub fn name(&self, nth: usize) -> String {
        composed((self.name)(nth))
    }

    /// What finds images by the hashes of their paths.
    pub fn into_paths(self) -> Index {
        self.by_path
    }

    /// The image that a name in a list means. A backslash counts as a slash if that finds an image.
    pub fn find(&self, name: &str) -> Found {
        let name = nfc(name.trim_start_matches("./"));
        match self.find_path(&name) {
            Found::Nothing if name.contains('\\') => self.find_path(&name.replace('\\', "/")),
            found => found,
        }
    }

    fn find_path(&self, name: &str) -> Found {
        let whole = self.by_path.all(hash::of_name(&[name])).next_back();
        if let Some(nth) = whole
            && let Some(fit) = fit(name, &self.name(nth)).filter(|fit| fit.whole)
        {
            return Found::Image(nth, fit);
        }
        let bare = !name.contains('/');
        let mut found = Found::Nothing;
        for nth in self.by_stem.all(key(name)).rev() {
            let Some(fit) = fit(name, &self.name(nth)) else {
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
            // If every class has the name, no image fits better than these.
            let best = bare && (fit.ending || !is_image_name(name));
            if best && matches!(found, Found::Several(..)) {
                break;
            }
        }
        found
    }

    fn fit_of(&self, name: &str, nth: usize) -> Option<Fit> {
        fit(name, &self.name(nth))
    }
}

fn composed(name: String) -> String {
    match nfc(&name) {
        Cow::Borrowed(_) => name,
        Cow::Owned(composed) => composed,
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
        let names =
            ["a/1.png", "b/1.png", "2.JPEG", "c/d/3.png", "4.jpg", "4.png", "cafe\u{301}.png"];
        let images = Images::new(names.len(), Box::new(|nth| names[nth].to_string()));
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
