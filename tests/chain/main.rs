//! All stages together: make, recipes, lineage, schedulers, shared folders, and the shape of the library.

#[path = "../common/mod.rs"]
mod common;

mod architecture;
mod chain;
mod changed_bytes;
mod command_line;
mod examples;
mod init;
mod lineage;
mod lock;
mod make_lineage;
mod makefile;
mod outputs;
mod recipes;
mod replaced;
mod scheduler;
mod unreadable;
mod words;
