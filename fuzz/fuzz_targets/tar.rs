//! tar, WebDataset, and tars in a tar.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    input::read(
        &[("in.tar", bytes)],
        "in.tar",
        s4l::input::Format::Tar,
        None,
    );
});
