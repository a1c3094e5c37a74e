//! IDX: the first byte is the number of those that are labels.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&labels, rest)) = bytes.split_first() else {
        return;
    };
    let (labels, images) = rest.split_at(usize::from(labels).min(rest.len()));
    let files = [
        ("train-images-idx3-ubyte", images),
        ("train-labels-idx1-ubyte", labels),
    ];
    input::read(&files, "", s4l::input::Format::Idx, None);
});
