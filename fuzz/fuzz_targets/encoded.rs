//! The structure of JPEG, PNG, WebP, GIF and BMP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = s4l::decode::encoded::check(bytes);
});
