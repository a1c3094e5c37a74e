//! Runs a command and injects a fault at a chosen moment. Does so thousands of times to the stages of the
//! smoke pipeline, each of which must return to the same bytes.
//!
//! ```text
//! calls   which system calls count            case      one fault, and its name
//! trace   a command under ptrace              draw      which cases a campaign has
//! damage  flipped bits, cut files             trial     a stage in a folder of its own
//! smoke   the stages and their command lines  perform   a case carried out and judged
//! world   their files, made undisturbed       verdict   classes of what is wrong
//! cli     the command line                    campaign  many cases at a time
//! ```

pub mod calls;
pub mod campaign;
pub mod case;
pub mod cli;
pub mod damage;
pub mod draw;
pub mod perform;
pub mod smoke;
pub mod trace;
pub mod trial;
pub mod verdict;
pub mod world;
