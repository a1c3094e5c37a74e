//! The kind of a file by its first bytes: an image that can be read, or a file that people take for one.

/// A kind of image file that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Jpeg,
    Png,
    Webp,
    Gif,
    Bmp,
}

/// The kinds that can be read, for messages.
pub const KINDS: &str = "JPEG, PNG, WebP, GIF or BMP";

impl Kind {
    pub fn of(start: &[u8]) -> Option<Kind> {
        match start {
            [0xff, 0xd8, ..] => Some(Kind::Jpeg),
            [0x89, b'P', b'N', b'G', ..] => Some(Kind::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Kind::Webp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Kind::Gif),
            [b'B', b'M', ..] => Some(Kind::Bmp),
            _ => None,
        }
    }
}

/// Whether 12 bytes begin an image that can be read. A BMP is not recognized by its two letters only.
pub fn is_image(start: &[u8]) -> bool {
    match Kind::of(start) {
        Some(Kind::Jpeg) => start.get(2) == Some(&0xff),
        Some(Kind::Bmp) => start.get(6..10) == Some(&[0; 4]),
        kind => kind.is_some(),
    }
}

/// The name of a file of another kind, for messages.
pub fn other(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file".to_string();
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return "a pointer of Git LFS in place of the image; git lfs pull fetches it".to_string();
    }
    match of_other(bytes) {
        Some(kind) => format!("{kind}, which is not read; make it {KINDS}"),
        None => format!("no {KINDS} by its first bytes"),
    }
}

/// First bytes, and what begins with them.
const STARTS: [(&[u8], &str); 18] = [
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"II+\0", "a BigTIFF"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"%PDF", "a PDF"),
    (b"\0\0\x01\0", "an icon"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a zip"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80\x04", "a Python pickle"),
    (b"P5", "a PGM"),
    (b"P6", "a PPM"),
];

/// The name of a kind that cannot be read, for messages.
pub fn of_other(bytes: &[u8]) -> Option<&'static str> {
    if let Some((_, kind)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(kind);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "an AVIF",
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => "a HEIC",
            _ => "a video",
        });
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text {
        _ if text.starts_with("<svg") => Some("an SVG"),
        _ if text.starts_with("<?xml") && text.contains("<svg") => Some("an SVG"),
        _ if text.starts_with("<!doctype html") || text.starts_with("<html") => {
            Some("a page of HTML")
        }
        _ => None,
    }
}
