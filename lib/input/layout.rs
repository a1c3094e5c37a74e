//! Checks that the class folders in an archive are unambiguous: as in a folder of images, all at one depth
//! below the splits, each in one place.

use super::item::{Class, SplitName};
use super::splits::Splits;
use std::collections::BTreeMap;

/// Two of the folders that hold images which cannot both be class folders, if there are such.
pub fn unclear(folders: &[String], splits: &Splits) -> Option<(String, String)> {
    let mut parents: BTreeMap<String, (String, &str)> = BTreeMap::new();
    let mut first: Option<(usize, &str)> = None;
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let image = format!("{folder}/image");
        let place = splits.place(&image, SplitName::Train);
        let Class::Folder(class) = place.class else {
            continue;
        };
        // The path without the folder that is the split.
        let split = place.split_folder.map_or("", |split| split);
        let above = split.rsplit_once('/').map_or("", |(above, _)| above);
        let below = folder[split.len()..].trim_start_matches('/');
        let path = format!("{above}/{below}");
        let depth = path.split('/').filter(|part| !part.is_empty()).count();
        let parent = path[..path.len() - class.len()].to_string();
        if let Some((_, other)) = first.filter(|(d, _)| *d != depth) {
            return Some((other.to_string(), folder.clone()));
        }
        first = Some((depth, folder));
        let (of_class, other) =
            parents.entry(class).or_insert_with(|| (parent.clone(), folder.as_str()));
        if *of_class != parent {
            return Some((other.to_string(), folder.clone()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::splits::Tree;

    fn is_clear(folders: &[&str]) -> bool {
        let mut tree = Tree::default();
        folders.iter().for_each(|folder| tree.add(&format!("{folder}/image")));
        let folders: Vec<String> = folders.iter().map(|f| f.to_string()).collect();
        unclear(&folders, &Splits::new(None).decide(&tree)).is_none()
    }

    #[test]
    fn class_folders_are_at_one_depth_and_in_one_place() {
        assert!(is_clear(&["set/train/bag", "set/test/bag", "set/test/coat"]));
        assert!(is_clear(&["train/cat", "train/dog", "val", "unlabeled"]));
        assert!(is_clear(&["bus", "car", "train"]));
        assert!(is_clear(&["animals/cat", "things/car"]));
        assert!(!is_clear(&["train/n1/images", "train/n2/images", "val/images"]));
        assert!(!is_clear(&["a/images", "b/images"]));
        assert!(!is_clear(&["a/cat", "b/c/dog"]));
        assert!(!is_clear(&["photos", "photos/cat"]));
    }
}
