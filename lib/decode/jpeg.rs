//! JPEG by the decoder of libjpeg-turbo, as mozjpeg ships it. A window of an image costs entropy decoding
//! down to its last row; transforms, upsampling and colour conversion are done only for its own pixels.
//!
//! libjpeg reports an error through a call that must not return. Here the call unwinds, through C code
//! compiled for unwinding (feature `unwinding`), up to `guarded`.

use super::scan::Scan;
use super::upright::{Header, StoredPixels, checked_size};
use crate::pixels::{Size, Window};
use image::metadata::Orientation;
use mozjpeg_sys::{
    J_COLOR_SPACE, JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_JPEG_EOF, JWRN_MUST_RESYNC, boolean,
    c_int, c_ulong, jpeg_abort_decompress, jpeg_common_struct, jpeg_create_decompress,
    jpeg_crop_scanline, jpeg_decompress_struct, jpeg_destroy_decompress, jpeg_error_mgr,
    jpeg_mem_src, jpeg_progress_mgr, jpeg_read_header, jpeg_read_scanlines, jpeg_save_markers,
    jpeg_skip_scanlines, jpeg_start_decompress, jpeg_std_error,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A JPEG with more scans is refused: each scan passes over all pixels but may take only a hundred bytes of
/// the file. The tools of libjpeg-turbo have the same limit; encoders write about ten scans.
pub const MAX_SCANS: usize = 500;

const APP1: c_int = 0xe1;
const APP14: c_int = 0xee;
const YES: boolean = 1;

/// A decompressor of libjpeg, reused for all images.
pub struct Jpeg {
    // Boxed: libjpeg keeps pointers between these structs.
    state: Box<jpeg_decompress_struct>,
    _errors: Box<jpeg_error_mgr>,
    _progress: Box<jpeg_progress_mgr>,
    scan: Box<Scan>,
}

impl Jpeg {
    pub fn new() -> Jpeg {
        // SAFETY: all are plain C structs, for which zero is a valid value. libjpeg fills them in.
        let (mut state, mut errors): (Box<jpeg_decompress_struct>, Box<jpeg_error_mgr>) =
            unsafe { (Box::new(std::mem::zeroed()), Box::new(std::mem::zeroed())) };
        let mut progress = Box::new(jpeg_progress_mgr {
            progress_monitor: Some(progress_made),
            pass_counter: 0,
            pass_limit: 0,
            completed_passes: 0,
            total_passes: 0,
        });
        // SAFETY: both managers outlive the decompressor, which is destroyed on drop.
        unsafe {
            jpeg_std_error(&mut errors);
            errors.error_exit = Some(unwind);
            errors.emit_message = Some(note);
            state.common.err = &mut *errors;
            jpeg_create_decompress(&mut *state);
            state.common.progress = &mut *progress;
            // The segments with the orientation and with the mark of inverted CMYK.
            jpeg_save_markers(&mut state, APP1, 0xffff);
            jpeg_save_markers(&mut state, APP14, 12);
        }
        Jpeg { state, _errors: errors, _progress: progress, scan: Box::new(Scan::new()) }
    }

    pub fn header(&mut self, bytes: &[u8]) -> Result<Header, String> {
        guarded(&mut self.state, |state| read_header(state, bytes))
    }

    /// Decodes the pixels inside the window that `choose` returns for a header. The window is inside the
    /// stored image and not empty. The pixels are scaled down by 2, 4 or 8 if the result is still `enough`.
    pub fn window(
        &mut self,
        bytes: &[u8],
        choose: impl Fn(Header) -> Result<(Window, Option<Size>), String>,
        pixels: &mut StoredPixels,
    ) -> Result<Header, String> {
        let result = self.read(bytes, &choose, true, pixels);
        match self.scan.gave_up() {
            true => self.read(bytes, &choose, false, pixels),
            false => result,
        }
    }

    /// As `window`, with our entropy decoder (`ours`) or libjpeg's.
    fn read(
        &mut self,
        bytes: &[u8],
        choose: impl Fn(Header) -> Result<(Window, Option<Size>), String>,
        ours: bool,
        pixels: &mut StoredPixels,
    ) -> Result<Header, String> {
        guarded(&mut self.state, |state| {
            let header = read_header(state, bytes)?;
            let (window, enough) = choose(header)?;
            // libjpeg transforms blocks of 8 pixels to this many pixels. These numbers are fast.
            state.scale_denom = 8;
            state.scale_num = enough.map_or(8, |enough| {
                let fits = |n: &u32| scaled(window, *n).size().holds(enough);
                [1, 2, 4].into_iter().find(fits).unwrap_or(8)
            });
            let scan = ours.then_some(&mut *self.scan);
            read_window(state, scaled(window, state.scale_num), scan, pixels)?;
            Ok(header)
        })
    }
}

/// Runs calls into libjpeg on one image, then resets the decompressor for the next image.
fn guarded<T>(
    state: &mut jpeg_decompress_struct,
    calls: impl FnOnce(&mut jpeg_decompress_struct) -> Result<T, String>,
) -> Result<T, String> {
    let result = catch_unwind(AssertUnwindSafe(|| calls(state)));
    // SAFETY: the decompressor was created; this call resets it from any state.
    unsafe { jpeg_abort_decompress(state) };
    result.unwrap_or_else(|payload| match payload.downcast::<String>() {
        Ok(message) => Err(*message),
        Err(other) => resume_unwind(other),
    })
}

impl Drop for Jpeg {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { jpeg_destroy_decompress(&mut self.state) }
    }
}

// SAFETY: libjpeg has no state outside these structs.
unsafe impl Send for Jpeg {}

fn read_header(state: &mut jpeg_decompress_struct, bytes: &[u8]) -> Result<Header, String> {
    // SAFETY: the caller keeps `bytes` until the image is done with.
    unsafe {
        jpeg_mem_src(state, bytes.as_ptr(), bytes.len() as c_ulong);
        jpeg_read_header(state, YES);
    }
    let stored = checked_size(state.image_height as usize, state.image_width as usize)?;
    let exif = segments(state).find_map(|(kind, data)| {
        let exif = data.strip_prefix(b"Exif\0\0").filter(|_| kind == APP1)?;
        Orientation::from_exif_chunk(exif)
    });
    Ok(Header { stored, orientation: exif.unwrap_or(Orientation::NoTransforms) })
}

/// The saved segments: kind and contents.
fn segments(state: &jpeg_decompress_struct) -> impl Iterator<Item = (c_int, &[u8])> {
    // SAFETY: libjpeg's list of saved segments lives until the image is done with.
    let mut next = unsafe { state.marker_list.as_ref() };
    std::iter::from_fn(move || {
        let segment = next?;
        // SAFETY: as above; a segment points to its `data_length` bytes.
        let data = unsafe {
            next = segment.next.as_ref();
            std::slice::from_raw_parts(segment.data, segment.data_length as usize)
        };
        Some((c_int::from(segment.marker), data))
    })
}

/// A window in an image of which 8 pixels become `eighths`: all pixels that it touches.
fn scaled(window: Window, eighths: u32) -> Window {
    let n = eighths as usize;
    let (bottom, right) = (window.y + window.height, window.x + window.width);
    let (y, x) = (window.y * n / 8, window.x * n / 8);
    Window { y, x, height: (bottom * n).div_ceil(8) - y, width: (right * n).div_ceil(8) - x }
}

/// Decodes a window of the output at the current scale.
fn read_window(
    state: &mut jpeg_decompress_struct,
    window: Window,
    scan: Option<&mut Scan>,
    pixels: &mut StoredPixels,
) -> Result<(), String> {
    let cmyk = matches!(state.jpeg_color_space, J_COLOR_SPACE::JCS_CMYK | J_COLOR_SPACE::JCS_YCCK);
    let inverted = segments(state).any(|(kind, data)| kind == APP14 && data.starts_with(b"Adobe"));
    let channels = if cmyk { 4 } else { 3 };
    state.out_color_space = match cmyk {
        true => J_COLOR_SPACE::JCS_CMYK,
        false => J_COLOR_SPACE::JCS_RGB,
    };
    // SAFETY: the header was read.
    unsafe { jpeg_start_decompress(state) };

    // Upsampled colour depends on the neighbours on both sides, so these are decoded too. Fewer than four
    // columns would be upsampled in another way.
    let right = (window.x + window.width + 3).min(state.output_width as usize);
    let mut left = window.x.saturating_sub(1) as u32;
    let mut width = right as u32 - left;
    // SAFETY: decompression has started and no row was read; the columns are inside the image. libjpeg
    // moves the first column to the left and widens the range to match.
    unsafe { jpeg_crop_scanline(state, &mut left, &mut width) };
    if let Some(scan) = scan {
        // SAFETY: the conditions of `take_over` hold: `scan` stays in place and unused while the rows are
        // read.
        unsafe { scan.take_over(state) };
    }
    let stride = width as usize * channels;
    pixels.data.resize(stride * window.height, 0);
    // SAFETY: the rows of the window are inside the image.
    unsafe { jpeg_skip_scanlines(state, window.y as u32) };
    for row in pixels.data.chunks_exact_mut(stride) {
        let mut row = row.as_mut_ptr();
        // SAFETY: a row of the output is `width` pixels of `channels` bytes.
        if unsafe { jpeg_read_scanlines(state, &mut row, 1) } != 1 {
            return Err("fewer rows than the header says".to_string());
        }
    }
    pixels.size = window.size();
    pixels.stride = stride;
    pixels.start = (window.x - left as usize) * channels;
    if cmyk {
        cmyk_to_rgb(pixels, inverted);
    }
    Ok(())
}

/// CMYK to RGB without a colour profile, as TensorFlow's `decode_jpeg`: c * k / 255 if Adobe's marker says
/// that 255 means no ink, else (255 - c) * (255 - k) / 255.
fn cmyk_to_rgb(pixels: &mut StoredPixels, inverted: bool) {
    let light = |ink: u8| u32::from(if inverted { ink } else { 255 - ink });
    let count = pixels.data.len() / 4;
    for i in 0..count {
        let ink: [u8; 4] = std::array::from_fn(|c| pixels.data[4 * i + c]);
        for c in 0..3 {
            pixels.data[3 * i + c] = (light(ink[c]) * light(ink[3]) / 255) as u8;
        }
    }
    pixels.data.truncate(3 * count);
    pixels.stride = pixels.stride / 4 * 3;
    pixels.start = pixels.start / 4 * 3;
}

/// The message of libjpeg.
fn message(state: &mut jpeg_common_struct) -> String {
    // libjpeg's JMSG_LENGTH_MAX.
    let mut text = [0u8; 200];
    // SAFETY: libjpeg calls this with its error manager in place. `format_message` writes a string
    // into the buffer, which the binding declares as read only and shorter than jpeglib.h does.
    unsafe {
        if let Some(format) = (*state.err).format_message {
            type Format = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, *mut [u8; 200]);
            let format: Format = std::mem::transmute(format);
            format(state, &mut text);
        }
    }
    let text = text.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// libjpeg's error: the image cannot be decoded.
extern "C-unwind" fn unwind(state: &mut jpeg_common_struct) {
    resume_unwind(Box::new(message(state)));
}

/// libjpeg calls this repeatedly while a decompressor reads.
extern "C-unwind" fn progress_made(state: &mut jpeg_common_struct) {
    // SAFETY: only decompressors have this monitor, and their struct begins with the common struct.
    let scans =
        unsafe { (*(&raw const *state).cast::<jpeg_decompress_struct>()).input_scan_number };
    if scans > MAX_SCANS as c_int {
        resume_unwind(Box::new(format!("more than {MAX_SCANS} scans")));
    }
}

/// libjpeg's warnings (level -1) and traces. After a warning about lost data libjpeg would continue with
/// grey or garbled pixels, so these warnings are errors here.
extern "C-unwind" fn note(state: &mut jpeg_common_struct, level: c_int) {
    const LOST_DATA: [c_int; 4] =
        [JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_JPEG_EOF, JWRN_MUST_RESYNC];
    // SAFETY: as in `message`.
    let code = unsafe { (*state.err).msg_code };
    if level < 0 && LOST_DATA.contains(&code) {
        unwind(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{RngExt, Stream, rng};

    /// Our decoder and libjpeg's give the same pixels or the same error. Our decoder must not give up on
    /// whole files; it may on damaged ones.
    #[test]
    fn our_entropy_decoder_decodes_as_libjpegs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/jpegs");
        let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
        let (mut damaged, mut given_up) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = std::fs::read(&path).unwrap();
            for trial in 0..500 {
                let mut bytes = file.clone();
                if trial >= 20 {
                    // The scan is more than the last half of the file.
                    let start = [2, bytes.len() / 2][trial / 4 % 2];
                    let at = rng.random_range(start..bytes.len());
                    match trial % 4 {
                        0 => bytes.truncate(at),
                        1 => bytes[at] = 0xff,
                        _ => bytes[at] ^= 1 << rng.random_range(0..8),
                    }
                }
                let choose = |header: Header| {
                    let Size { height, width } = header.stored;
                    let (y, x) = (trial * 7 % height, trial * 13 % width);
                    let (height, width) = ((height - y).div_ceil(2), (width - x).div_ceil(2));
                    let window = Window { y, x, height, width };
                    Ok((window, None))
                };
                let mut decoded = [true, false].map(|ours| {
                    let (mut jpeg, mut pixels) = (Jpeg::new(), StoredPixels::default());
                    let result = jpeg.read(&bytes, choose, ours, &mut pixels);
                    let result = result.map(|_| (pixels.data, pixels.stride, pixels.start));
                    (result, jpeg.scan.gave_up())
                });
                let gave_up = std::mem::take(&mut decoded[0].1);
                if trial < 20 {
                    assert!(!gave_up, "{path:?}");
                } else {
                    damaged += 1;
                    given_up += usize::from(gave_up);
                }
                if !gave_up {
                    assert!(decoded[0] == decoded[1], "{path:?}, trial {trial}");
                }
            }
        }
        assert!(given_up > damaged / 20 && given_up < damaged / 2, "{given_up} of {damaged}");
    }

    #[test]
    fn a_table_without_codes_is_left_to_libjpeg() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/jpegs/420.jpg");
        let mut bytes = std::fs::read(path).unwrap();
        // The AC table 0: its length, class and number, 16 counts, 162 symbols.
        let table = [0xff, 0xc4, 0, 0xb5, 0x10];
        let at = bytes.windows(5).position(|part| part == table).unwrap();
        let none = [&[0xff, 0xc4, 0, 0x13, 0x10][..], &[0; 16]].concat();
        bytes.splice(at..at + 2 + 0xb5, none);
        let whole = |header: Header| Ok((Window::whole(header.stored), None));
        let (mut jpeg, mut pixels) = (Jpeg::new(), StoredPixels::default());
        assert!(jpeg.read(&bytes, whole, true, &mut pixels).is_err());
        assert!(jpeg.scan.gave_up());
        jpeg.window(&bytes, whole, &mut pixels).unwrap();
    }
}
