//! One module a binary: what it takes, what it does, what it leaves behind.

pub mod inspect;
pub mod report;
