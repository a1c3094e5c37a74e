//! Scalars as a TensorBoard event file: `Event` protocol buffers in TFRecord frames.
//!
//! The wall time of an event is its step number, in seconds, since outputs are the same bytes from
//! run to run: read the curves over steps, not over time.

use crate::model::metrics::Metric;

/// The bytes of an event file with one event a metric.
pub fn encode(metrics: &[Metric]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut version = Vec::new();
    bytes_field(&mut version, 3, b"brain.Event:2");
    frame(&mut file, &version);
    for metric in metrics {
        frame(&mut file, &event(metric));
    }
    file
}

/// `Event { double wall_time = 1; int64 step = 2; Summary summary = 5; }` with
/// `Summary { repeated Value value = 1; }` and `Value { string tag = 1; float simple_value = 2; }`.
fn event(Metric { step, name, value }: &Metric) -> Vec<u8> {
    let mut scalar = Vec::new();
    bytes_field(&mut scalar, 1, name.as_bytes());
    tag(&mut scalar, 2, FIXED32);
    scalar.extend((*value as f32).to_le_bytes());
    let mut summary = Vec::new();
    bytes_field(&mut summary, 1, &scalar);

    let mut event = Vec::new();
    tag(&mut event, 1, FIXED64);
    event.extend((*step as f64).to_le_bytes());
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
fn frame(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
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

    #[test]
    fn the_bytes_are_those_of_tensorboard() {
        let bytes = encode(&[Metric { step: 300, name: "loss".to_string(), value: 0.5 }]);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, EXPECTED);
    }
}
