//! The files that a tar or a zip lists.

use crate::error::Result;
use std::io::Read;

/// A file in an archive.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its path, as the archive has it.
    pub path: &'a [u8],
    pub kind: MemberKind,
    /// The position of its content: a byte of the tar, or a number in the zip.
    pub at: u64,
    pub size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum MemberKind {
    File,
    /// A file that cannot be read, and why.
    Unread(&'static str),
    /// A link to a path in the archive, relative to its root or to the link's folder.
    HardLink(Vec<u8>),
    SymbolicLink(Vec<u8>),
}

/// The position at which an archive ends too soon, and why.
#[derive(Debug)]
pub struct Cut {
    pub at: u64,
    pub found: String,
}

/// What is done with each member, whose content can be read.
pub type VisitMember<'a> = &'a mut dyn FnMut(Member, &mut dyn Read) -> Result<()>;

/// A path in an archive, or a target from `folder` on, without `.`, `..` and a slash in front.
pub fn normal(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn links_lead_to_paths_from_the_root() {
        assert_eq!(normal("photos/cat", "../../all/0.jpg"), "all/0.jpg");
        assert_eq!(normal("photos/cat", "/all/0.jpg"), "all/0.jpg");
        assert_eq!(normal("", "./photos//cat/./0.jpg"), "photos/cat/0.jpg");
        assert_eq!(normal("a", "../../x"), "x");
    }
}
