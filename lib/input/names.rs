//! What the path of an image in an input says: its split and class, and whether it is an image.

use super::item::{Class, SplitName};

/// The last part of a path with slashes.
pub fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a name ends as that of an image file, of a kind that is read or not.
pub fn is_image_name(name: &str) -> bool {
    const ENDINGS: [&str; 14] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
        "avif", "jxl",
    ];
    base_name(name)
        .rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
}

/// Split and class of an image by its path: `[<split>/][<class>/]<image>`, whatever folders are
/// above. A folder named as a split above the class is the split, else it is `split`.
pub fn split_and_class(name: &str, split: SplitName) -> (SplitName, Class) {
    let mut folders: Vec<&str> = name.split('/').collect();
    folders.pop();
    let named = |folder: &&str| SplitName::of_folder(folder);
    match folders.as_slice() {
        [] => (split, Class::Unknown),
        // Alone, "train" is a split without classes.
        [only] => match SplitName::of_folder(only) {
            Some(split) => (split, Class::Unknown),
            None => (split, Class::Folder(only.to_string())),
        },
        [above @ .., class] => match (above.iter().find_map(named), SplitName::of_folder(class)) {
            (None, Some(split)) => (split, Class::Unknown),
            (above, _) => (above.unwrap_or(split), Class::Folder(class.to_string())),
        },
    }
}

/// The path that tells images of one base name apart: without the folder of the split.
pub fn without_split(name: &str) -> &str {
    match name.split_once('/') {
        Some((folder, rest)) if SplitName::of_folder(folder).is_some() => rest,
        _ => name,
    }
}
