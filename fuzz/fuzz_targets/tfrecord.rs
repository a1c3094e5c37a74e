//! The framing of TFRecord.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    input::read(
        &[("in.tfrecord", bytes)],
        "in.tfrecord",
        s4l::input::Format::Tfrecord,
        None,
    );
});
