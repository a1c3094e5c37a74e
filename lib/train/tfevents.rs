//! Scalars as a TensorBoard event file: `Event` protocol buffers in TFRecord frames.
//!
//! The wall time of an event is its step number, in seconds, since outputs are the same bytes from
//! run to run: read the curves over steps, not over time. `--wall-times` asks for the clock's.

use crate::error::{Error, Result};
use crate::model::metrics::Metric;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that grows during a run. Each write ends with a whole record.
pub struct EventFile {
    path: PathBuf,
    file: File,
    /// All that is in it.
    bytes: Vec<u8>,
    wall_times: bool,
}

impl EventFile {
    /// Opens the file with the metrics so far. Records that a stopped run wrote beyond them are cut off, and
    /// the rest stays as it is, so that a reader can follow the file. A file without these records is
    /// written again.
    pub fn open(path: &Path, metrics: &[Metric], wall_times: bool) -> Result<EventFile> {
        let mut options = File::options();
        let file = options.create(true).append(true).open(path).map_err(Error::io(path))?;
        let found = std::fs::read(path).map_err(Error::io(path))?;
        let mut events = EventFile { path: path.to_path_buf(), file, bytes: found, wall_times };
        match recorded(&events.bytes, metrics, wall_times) {
            Some(length) => {
                events.bytes.truncate(length);
                events.cut(length)?;
            }
            None => {
                events.cut(0)?;
                let time = |metric: &Metric| metric.step as f64;
                events.bytes = version();
                events.bytes.extend(metrics.iter().flat_map(|m| record(m, time(m))));
                events.file.write_all(&events.bytes).map_err(Error::io(path))?;
            }
        }
        Ok(events)
    }

    fn cut(&self, length: usize) -> Result<()> {
        self.file.set_len(length as u64).map_err(Error::io(&self.path))
    }

    /// Adds metrics, in one piece.
    pub fn add(&mut self, metrics: &[Metric]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let time = |metric: &Metric| if self.wall_times { now } else { metric.step as f64 };
        let new: Vec<u8> = metrics.iter().flat_map(|m| record(m, time(m))).collect();
        self.file.write_all(&new).map_err(Error::io(&self.path))?;
        self.bytes.extend(new);
        Ok(())
    }

    /// All that is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The length of the records of these metrics at the start of a file, or `None` if they are not there.
/// With `any_time` they may have any wall times.
fn recorded(file: &[u8], metrics: &[Metric], any_time: bool) -> Option<usize> {
    let mut rest = file.strip_prefix(&version()[..])?;
    for metric in metrics {
        let time = match any_time {
            true => f64::from_le_bytes(rest.get(WALL_TIME)?.try_into().ok()?),
            false => metric.step as f64,
        };
        rest = rest.strip_prefix(&record(metric, time)[..])?;
    }
    Some(file.len() - rest.len())
}

/// Where a record of a metric has its wall time: behind length, checksum and tag.
const WALL_TIME: std::ops::Range<usize> = 13..21;

/// The first record of a file.
fn version() -> Vec<u8> {
    let mut version = Vec::new();
    bytes_field(&mut version, 3, b"brain.Event:2");
    frame(&version)
}

fn record(metric: &Metric, wall_time: f64) -> Vec<u8> {
    frame(&event(metric, wall_time))
}

/// `Event { double wall_time = 1; int64 step = 2; Summary summary = 5; }` with
/// `Summary { repeated Value value = 1; }` and `Value { string tag = 1; float simple_value = 2; }`.
fn event(Metric { step, name, value }: &Metric, wall_time: f64) -> Vec<u8> {
    let mut scalar = Vec::new();
    bytes_field(&mut scalar, 1, name.as_bytes());
    tag(&mut scalar, 2, FIXED32);
    scalar.extend((*value as f32).to_le_bytes());
    let mut summary = Vec::new();
    bytes_field(&mut summary, 1, &scalar);

    let mut event = Vec::new();
    tag(&mut event, 1, FIXED64);
    event.extend(wall_time.to_le_bytes());
    tag(&mut event, 2, VARINT);
    varint(&mut event, *step);
    bytes_field(&mut event, 5, &summary);
    event
}

// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    tag(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A TFRecord: length, masked checksum of the length, data, masked checksum of the data.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let [of_length, of_data] = [&length, data].map(|bytes| masked_crc(bytes).to_le_bytes());
    [&length[..], &of_length, data, &of_data].concat()
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    // import io
    // from tensorboard.compat.proto.event_pb2 import Event
    // from tensorboard.compat.proto.summary_pb2 import Summary
    // from tensorboard.summary.writer.record_writer import RecordWriter
    // f = io.BytesIO(); w = RecordWriter(f)
    // w.write(Event(file_version="brain.Event:2").SerializeToString())
    // w.write(Event(wall_time=300, step=300, summary=Summary(value=[
    //     Summary.Value(tag="loss", simple_value=0.5)])).SerializeToString())
    // print(f.getvalue().hex())
    const EXPECTED: &str = "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc985129\
        1b000000000000001a0d9e13090000000000c0724010ac022a0d0a0b0a046c6f7373150000003f27554a2e";

    fn metric(step: u64) -> Metric {
        Metric { step, name: "loss".to_string(), value: 0.5 }
    }

    #[test]
    fn the_bytes_are_those_of_tensorboard() {
        let bytes = [version(), record(&metric(300), 300.0)].concat();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, EXPECTED);
    }

    #[test]
    fn what_is_opened_again_goes_on_without_doubles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let all: Vec<Metric> = (1..=4).map(metric).collect();
        let whole =
            [version(), all.iter().flat_map(|m| record(m, m.step as f64)).collect()].concat();
        let times = |bytes: &[u8], count: usize| -> Vec<f64> {
            let place = |nth: usize| version().len() + nth * record(&all[0], 0.0).len();
            let time = |nth| &bytes[place(nth)..][WALL_TIME];
            (0..count).map(|nth| f64::from_le_bytes(time(nth).try_into().unwrap())).collect()
        };
        // Two metrics are in the checkpoint, a third and half of a fourth in the file.
        let torn = &whole[..whole.len() - 9];
        let rewound = |before: &[u8], wall_times: bool| {
            std::fs::write(&path, before).unwrap();
            let mut events = EventFile::open(&path, &all[..2], wall_times).unwrap();
            events.add(&all[2..]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), events.bytes());
            events.bytes().to_vec()
        };
        assert_eq!(rewound(torn, false), whole);
        for other in [&b""[..], b"other", &whole[..30]] {
            assert_eq!(rewound(other, false), whole);
        }
        let clock = rewound(torn, true);
        let found = times(&clock, 4);
        assert_eq!((clock.len(), &found[..2]), (whole.len(), &[1.0, 2.0][..]));
        assert!(found[2..].iter().all(|&time| time > 1e9), "{found:?}");
        // Wall-clock times are kept only if they are asked for.
        std::fs::write(&path, &clock).unwrap();
        let again = EventFile::open(&path, &all, true).unwrap();
        assert_eq!(times(again.bytes(), 4), found);
        assert_eq!(rewound(&clock, false), whole);
    }
}
