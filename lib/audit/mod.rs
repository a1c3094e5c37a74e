//! The audit of pseudo labels: `labels.parquet` joined with the tables to compare with (`labels`), counted
//! (`figures`), and shown as a page (`html`, with images, `gallery`).

mod figures;
mod gallery;
pub mod html;
pub mod labels;
