//! Shared by the pages. A page is one file that needs no network, readable in both themes, on narrow and
//! wide screens, on paper and by keyboard. The frame with `escape` (`frame`), charts (`chart`, on an
//! `axis`), confusion tables (`matrix`), images of shards (`picture`). The subject of a page is elsewhere.

mod axis;
pub mod chart;
pub mod frame;
pub mod matrix;
pub mod picture;
