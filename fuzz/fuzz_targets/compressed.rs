//! Compressed files of many images: the first byte says whether tar or TFRecord. The rest is such a
//! compressed file, gzip or zstd by its first bytes.
#![no_main]

mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [format, file @ ..] = bytes else {
        return;
    };
    let format = match format % 2 {
        0 => s4l::input::Format::Tar,
        _ => s4l::input::Format::Tfrecord,
    };
    input::read(&[("in", file)], "in", format, None);
});
