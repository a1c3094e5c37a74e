//! npz of MedMNIST.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    input::read(&[("in.npz", bytes)], "in.npz", s4l::input::Format::Npz, None);
});
