//! The comparison of runs: read (`runs`), grouped into the rows of the paper's table (`rows`), checked
//! to belong together (`check`), and written as a table (`table`) and as a page (`html`, drawn by
//! `curves` and `svg`).

pub mod check;
pub mod curves;
pub mod html;
pub mod rows;
pub mod runs;
pub mod svg;
pub mod table;
