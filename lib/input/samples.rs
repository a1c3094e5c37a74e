//! The files of one sample of WebDataset: which of its pictures are images, and which have the labels.

use super::names::base_name;

/// A label file.
#[derive(Debug)]
pub struct Label {
    pub name: String,
    /// A number that stands for the class.
    pub class: u32,
    /// JSON that holds no label: it may be no label file.
    pub is_damaged: bool,
}

/// The path up to the first dot of its base name.
pub fn stem(name: &str) -> &str {
    let base = base_name(name);
    let folders = name.len() - base.len();
    &name[..folders + base.find('.').unwrap_or(base.len())]
}

fn without_ending(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(name, _)| name)
}

/// The class of each image of a sample with labels, `None` for a picture that is not an image of the
/// sample; and whether another picture would fit as well.
///
/// An image has the label whose name equals its own without the ending: of `0001.jpg`, `0001.mask.png` and
/// `0001.cls` the first is the image. If no image has, as of `0001.input.jpg` and `0001.target.cls`, the
/// first has the label. If several label files would fit, the last one counts.
pub fn classes(images: &[&str], labels: &[Label]) -> (Vec<Option<u32>>, bool) {
    let mut several = false;
    let mut classes: Vec<Option<u32>> = Vec::new();
    for (nth, image) in images.iter().enumerate() {
        let name = without_ending(image);
        let label = labels.iter().rev().find(|label| without_ending(&label.name) == name);
        let before = images[..nth].iter().any(|other| without_ending(other) == name);
        several |= before && label.is_some();
        classes.push(label.filter(|_| !before).map(|label| label.class));
    }
    if let ([first, others @ ..], Some(label)) = (&mut classes[..], labels.last())
        && first.is_none()
        && others.iter().all(Option::is_none)
    {
        *first = Some(label.class);
        several = !others.is_empty();
    }
    (classes, several)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn sample(files: &[&str], expected: &[Option<u32>], other: bool) {
        let is_label = |f: &&&str| f.ends_with(".cls");
        let labels = files.iter().filter(is_label).enumerate();
        let labels: Vec<Label> = labels
            .map(|(i, f)| Label { name: f.to_string(), class: i as u32, is_damaged: false })
            .collect();
        let images: Vec<&str> = files.iter().filter(|f| !is_label(f)).copied().collect();
        assert_eq!(classes(&images, &labels), (expected.to_vec(), other));
    }

    #[test]
    fn which_image_a_label_belongs_to() {
        sample(&["a/1.jpg", "a/1.cls"], &[Some(0)], false);
        sample(&["1.seg.png", "1.jpg", "1.cls"], &[None, Some(0)], false);
        sample(&["1.input.jpg", "1.target.cls"], &[Some(0)], false);
        sample(&["1.left.jpg", "1.right.jpg", "1.cls"], &[Some(0), None], true);
        sample(&["1.jpg", "1.png", "1.cls"], &[Some(0), None], true);
        sample(&["1.v1.jpg", "1.v1.cls", "1.v2.jpg", "1.v2.cls"], &[Some(0), Some(1)], false);
    }
}
