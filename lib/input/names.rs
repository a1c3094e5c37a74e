//! Names of images and of their folders, as people and operating systems write them.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The last part of a path with slashes.
pub fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a name has the ending of an image file, of any kind.
pub fn is_image_name(name: &str) -> bool {
    stem(name).len() < name.len()
}

/// A name without the ending of an image file.
pub fn stem(name: &str) -> &str {
    const ENDINGS: [&str; 14] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
        "avif", "jxl",
    ];
    let is_ending = |ending: &str| ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e));
    match name.rsplit_once('.') {
        Some((stem, ending)) if is_ending(ending) => stem,
        _ => name,
    }
}

/// Whether a file or folder of this name belongs to the operating system, not to the data.
pub fn is_hidden(name: &str) -> bool {
    const OF_SYSTEMS: [&str; 7] = [
        "__MACOSX",
        "@eaDir",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "Thumbs.db",
        "desktop.ini",
    ];
    name.starts_with('.') || OF_SYSTEMS.contains(&name)
}

/// Whether a part of a path is hidden.
pub fn is_hidden_path(name: &str) -> bool {
    name.split('/').any(|part| is_hidden(part) && part != "." && part != "..")
}

/// The composed form of a name: macOS writes `é` as two characters, other systems as one.
pub fn nfc(name: &str) -> Cow<'_, str> {
    match name.is_ascii() || is_nfc_quick(name.chars()) == IsNormalized::Yes {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.nfc().collect()),
    }
}

/// Text without the byte order mark that some editors write first.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
