//! `tf.train.Example`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = s4l::input::example(bytes);
});
