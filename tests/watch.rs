//! What a run shows while it goes on: TensorBoard's file.

mod common;

use common::training::{
    PRETRAIN, curve, differing, labelled_shards, model, pretrain, pretrain_words, words,
};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const EVENTS: &str = "events.out.tfevents.0.s4l";

fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(120), "waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}

/// A number of a protocol buffer, taken off its start.
fn varint(bytes: &mut &[u8]) -> u64 {
    let length = 1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    number.iter().rev().fold(0, |all, byte| all << 7 | u64::from(byte & 0x7f))
}

/// Wall time, step and name of the events in TensorBoard's file; `None` if its last record is not whole.
fn events(path: &Path) -> Option<Vec<(f64, u64, String)>> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest.get(..8)?.try_into().unwrap()) as usize;
        let mut data = rest.get(12..12 + length)?;
        let masked = crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
        let stored = rest.get(12 + length..16 + length)?;
        assert_eq!(u32::from_le_bytes(stored.try_into().unwrap()), masked);
        // The first record is the version.
        if rest.len() < bytes.len() {
            let time = f64::from_le_bytes(data[1..9].try_into().unwrap());
            data = &data[10..];
            let step = varint(&mut data);
            // Tags and lengths of summary and value, the tag of the name.
            let name = &data[5..];
            let name = &name[1..1 + usize::from(name[0])];
            found.push((time, step, String::from_utf8(name.to_vec()).unwrap()));
        }
        rest = &rest[16 + length..];
    }
    Some(found)
}

#[test]
fn tensorboard_s_file_grows_while_a_run_goes_on_and_has_every_point_once() {
    let scratch = labelled_shards();
    let line = pretrain_words("supervised_10p", "model", "-s schedule=[1,100]");
    let start = || {
        let mut command = Command::new(PRETRAIN);
        command.args(words(&line)).current_dir(scratch.path(".")).spawn().unwrap()
    };
    let path = scratch.path("model").join(EVENTS);
    let whole = || {
        // A read may meet a write in its middle, the next one does not.
        let found = events(&path).or_else(|| {
            std::thread::sleep(Duration::from_millis(50));
            events(&path)
        });
        found.expect("whole records")
    };
    let mut child = start();
    let mut sizes = Vec::new();
    until("it has a checkpoint", || scratch.path("model/checkpoint/state.safetensors").exists());
    while sizes.last() < Some(&400) && child.try_wait().unwrap().is_none() {
        let count = whole().len();
        assert!(sizes.last().is_none_or(|&last| last <= count));
        if sizes.last() != Some(&count) {
            sizes.push(count);
        }
    }
    assert!(sizes.len() > 3 && child.try_wait().unwrap().is_none(), "{sizes:?}");
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    // The last record was cut by the kill.
    let mut torn = std::fs::read(&path).unwrap();
    torn.truncate(torn.len() - 5);
    std::fs::write(&path, torn).unwrap();
    assert!(start().wait().unwrap().success());
    let found = whole();
    let losses: Vec<u64> = found.iter().filter(|e| e.2 == "loss").map(|e| e.1).collect();
    assert_eq!(losses, (1..=600).collect::<Vec<u64>>());
    assert_eq!(curve(&scratch, "model", "loss").len(), losses.len());
    assert!(found.iter().all(|(time, step, _)| *time == *step as f64));
}

#[test]
fn wall_times_are_the_clock_s_and_change_nothing_else() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "steps", "").ok();
    pretrain(&scratch, "supervised_1p", "clock", "--wall-times").ok();
    assert_eq!(differing(&model(&scratch, "steps"), &model(&scratch, "clock")), [EVENTS]);
    let events = |name: &str| events(&scratch.path(name).join(EVENTS)).unwrap();
    let (steps, clock) = (events("steps"), events("clock"));
    let without_time = |events: &[(f64, u64, String)]| -> Vec<(u64, String)> {
        events.iter().map(|e| (e.1, e.2.clone())).collect()
    };
    assert_eq!(without_time(&steps), without_time(&clock));
    assert!(clock.iter().all(|e| e.0 > 1.7e9), "{clock:?}");
}

/// The curves of a run that replaces a model grow beside its checkpoints.
#[test]
fn an_old_model_keeps_its_curves_until_it_is_replaced() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let finished = model(&scratch, "model");
    let other = "--seed 1 --force -s schedule=[0,50]";
    let line = pretrain_words("supervised_1p", "model", other);
    let live = format!("model/checkpoint/{EVENTS}");
    let log = "model/metrics.jsonl";
    let ended = common::training::signalled(&scratch, PRETRAIN, &line, log, &[libc::SIGTERM]);
    assert_eq!(ended.status.code(), Some(75));
    assert!(!events(&scratch.path(&live)).unwrap().is_empty());
    for (name, bytes) in &finished {
        assert!(std::fs::read(scratch.path("model").join(name)).unwrap() == *bytes, "{name}");
    }
    pretrain(&scratch, "supervised_1p", "model", other).ok();
    pretrain(&scratch, "supervised_1p", "fresh", "--seed 1 -s schedule=[0,50]").ok();
    assert_eq!(
        differing(&model(&scratch, "fresh"), &model(&scratch, "model")),
        Vec::<String>::new()
    );
}
