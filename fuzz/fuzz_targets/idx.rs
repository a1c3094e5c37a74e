//! IDX: the first byte says how the files are compressed, the second how many of the others are
//! those of the labels; 0: there is no file of labels.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [compression, labels, rest @ ..] = bytes else {
        return;
    };
    let (labels, images) = rest.split_at(usize::from(*labels).min(rest.len()));
    let ending = ["", ".gz", ".zst"][usize::from(compression % 3)];
    let name = |kind: &str| format!("train-{kind}-ubyte{ending}");
    let (images_name, labels_name) = (name("images-idx3"), name("labels-idx1"));
    let files = [(&images_name[..], images), (&labels_name[..], labels)];
    let files = &files[..if labels.is_empty() { 1 } else { 2 }];
    input::read(files, "", s4l::input::Format::Idx, None);
});
