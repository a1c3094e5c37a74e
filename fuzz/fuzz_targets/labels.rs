//! Lists of labels, and CSV lists of images.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let files = [("1.png", &b"1"[..]), ("2.png", b"2"), ("labels", bytes)];
    input::read(&files, "", s4l::input::Format::Folder, Some("labels"));
    input::read(&files, "labels", s4l::input::Format::Csv, None);
});
