//! Parquet of other tools.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    input::read(
        &[("in.parquet", bytes)],
        "in.parquet",
        s4l::input::Format::Parquet,
        None,
    );
});
