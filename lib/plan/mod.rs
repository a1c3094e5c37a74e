//! From images to a pipeline folder: what `s4l-init` finds, measures, decides and writes.
//!
//! - `contents`: the images and labels, and problems with them
//! - `recipes`: the recipes of a network for the data, as text
//! - `rate`: how long they take on this machine
//! - `choice`: the network and the steps that fit into the time

pub mod choice;
pub mod contents;
mod rate;
mod recipes;
