//! The audit of pseudo labels: what `labels.parquet` has, joined with all that it is compared with
//! (`labels`), counted (`figures`), and shown as a page (`html`, with images, `gallery`).

mod figures;
mod gallery;
pub mod html;
pub mod labels;
