//! The comparison of runs: read (`runs`, with what their rows say together, `outcomes`, and the number of
//! their labels, `labels`), grouped into the rows of the paper's table (`rows`), checked to belong together
//! (`check`), and written as a table (`table`) and as a page (`html`, with `curves` and how each row was
//! `made`).

pub mod check;
mod curves;
pub mod html;
pub mod labels;
mod made;
mod outcomes;
pub mod rows;
pub mod runs;
pub mod table;
