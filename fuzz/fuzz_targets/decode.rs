//! Whole images and windows of them, decoded: our calls into libjpeg-turbo, the turns of EXIF, the
//! decoders of PNG and WebP. The first two bytes choose the window.
#![no_main]

use s4l::pixels::{Size, Window};
use s4l::decode::Decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [a, b, image @ ..] = bytes else {
        return;
    };
    let mut decoder = Decoder::default();
    let Ok(size) = decoder.size(image) else {
        return;
    };
    let part = |length: usize, by: u8| {
        let start = (usize::from(by) * length / 256).min(length - 1);
        (start, (length - start).div_ceil(2))
    };
    let ((y, height), (x, width)) = (part(size.height, *a), part(size.width, *b));
    let window = Window {
        y,
        x,
        height,
        width,
    };
    let enough = Some(Size {
        height: height.div_ceil(4),
        width: width.div_ceil(4),
    });
    let _ = decoder.window(image, size, window, None);
    let _ = decoder.window(image, size, window, enough);
    let _ = decoder.whole(image);
});
