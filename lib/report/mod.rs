//! The comparison of runs. They are read (`runs`, with the outcomes per class, `outcomes`, the number of
//! labels, `labels`, and of images seen in training, `budget`), grouped into the rows of the paper's table
//! (`rows`), checked to belong together (`check`), compared with the supervised row (`paired`), and written
//! as a table (`table`) and as a page (`html`, with `curves` and how each row was `made`); what their stages
//! used is in files of its own (`cost`).

pub mod budget;
pub mod check;
pub mod cost;
mod curves;
pub mod html;
pub mod labels;
mod made;
mod outcomes;
pub mod paired;
pub mod rows;
pub mod runs;
pub mod table;
