//! The comparison of runs: read (`runs`, with what their rows say together, `outcomes`, the number of
//! their labels, `labels`, and how many images training saw, `budget`), grouped into the rows of the paper's
//! table (`rows`), checked to belong together (`check`), compared with the supervised one (`paired`), and
//! written as a table (`table`) and as a page (`html`, with `curves` and how each row was `made`).

pub mod budget;
pub mod check;
mod curves;
pub mod html;
pub mod labels;
mod made;
mod outcomes;
pub mod paired;
pub mod rows;
pub mod runs;
pub mod table;
