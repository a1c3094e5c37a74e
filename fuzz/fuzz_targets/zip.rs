//! zip: class folders, WebDataset.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    input::read(&[("in.zip", bytes)], "in.zip", s4l::input::Format::Zip, None);
});
