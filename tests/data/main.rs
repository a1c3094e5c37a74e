//! From image files to the views that training sees: `s4l-shard`, `s4l-subset`, shards, decoding, pipes.

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod augment;
mod bad_input;
mod decode;
mod input;
mod layouts;
mod lists;
mod loader;
mod pictures;
mod shard;
mod shard_parts;
mod shards;
mod sheet;
mod subset;
