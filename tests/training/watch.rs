//! What a run prints while it works: plan, lines, bar, TensorBoard's file.

use crate::common::Scratch;
use crate::common::training::{
    PRETRAIN, curve, differing, labelled_shards, model, pretrain, pretrain_words, words,
};
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

fn text(scratch: &Scratch, name: &str) -> String {
    std::fs::read_to_string(scratch.path(name)).unwrap_or_default()
}

/// A long run whose messages go to `<out>.log`; `words_of` is `-q`, or the format of its messages.
fn long_run(scratch: &Scratch, out: &str, words_of: &str) -> Child {
    let line = pretrain_words("vat_entmin", out, "-s schedule=[1,100000]");
    let log = File::create(scratch.path(&format!("{out}.log"))).unwrap();
    let child = Command::new(PRETRAIN)
        .args(words(&line.replace(" -q", words_of)))
        .current_dir(scratch.path("."))
        .stderr(log)
        .spawn()
        .unwrap();
    until("it trains", || !text(scratch, &format!("{out}/metrics.jsonl")).is_empty());
    child
}

/// Half a minute passes for a stopped run.
#[test]
fn a_log_has_the_plan_and_a_line_every_30_seconds() {
    let scratch = labelled_shards();
    let runs = [("text", ""), ("json", " --log-format json"), ("quiet", " -q")];
    let mut runs = runs.map(|(out, words)| (out, long_run(&scratch, out, words)));
    runs.iter().for_each(|(_, child)| signal(child, libc::SIGSTOP));
    std::thread::sleep(Duration::from_secs(31));
    let logged = runs.iter().map(|(out, _)| text(&scratch, &format!("{out}.log")));
    assert!(logged.into_iter().all(|log| !log.contains("images/s")), "a line before its time");
    for (out, child) in &mut runs {
        let steps = || text(&scratch, &format!("{out}/metrics.jsonl")).lines().count();
        let before = steps();
        signal(child, libc::SIGCONT);
        until("it goes on for some steps", || steps() > before + 100);
        signal(child, libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(75));
    }
    let log = text(&scratch, "text.log");
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("(recipe has ")).collect();
    for (line, start) in lines.iter().zip([
        "method     vat, learning rate 0.05",
        "network    [1] units, width factor 1, SmallStride2 stem, 28x28x1 images, ",
        "data       10 classes, 100 labelled images (16 a step), 350 unlabelled (16 a step)",
        "steps      600000 (6 an epoch), 32 images each",
        "time       about ",
        "step ",
        "error: s4l-pretrain: text: stopped at step ",
    ]) {
        assert!(line.starts_with(start), "{start:?} in {log}");
    }
    assert_eq!(lines.len(), 7, "{log}");
    for word in [
        " of 600000, ",
        " left, ",
        " images/s, ",
        "% waiting for images, ",
        ", learning rate ",
        ", loss ",
        ", loss/supervised ",
        ", loss/vat ",
        ", loss/entmin ",
    ] {
        assert!(lines[5].contains(word), "{word:?} in {}", lines[5]);
    }
    let quiet = text(&scratch, "quiet.log");
    assert!(quiet.starts_with("error: ") && quiet.lines().count() == 1, "{quiet}");
    json_has_it_all(&text(&scratch, "json.log"));
}

fn json_has_it_all(log: &str) {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> = lines.collect();
    let with = |key: &str| {
        let mut found = lines.iter().filter(|line| line.get(key).is_some());
        let line = found.next().unwrap_or_else(|| panic!("no {key} in {log}"));
        assert_eq!(line["level"], "info");
        line
    };
    let plan = with("network");
    assert_eq!(plan["method"], "vat");
    for (key, value) in [("steps", 600_000), ("labelled_images", 100), ("images_a_step", 32)] {
        assert_eq!(plan[key], value, "{key}");
    }
    assert!(with("steps_per_second")["seconds_left"].as_f64().unwrap() > 0.0);
    let step = with("step");
    assert!(step["message"].as_str().unwrap().starts_with("step "));
    for key in ["step", "steps", "seconds_left", "images_per_second", "waiting", "learning_rate"] {
        assert!(step[key].as_f64().is_some_and(|value| value >= 0.0), "{key} in {step}");
    }
    for name in ["loss", "loss/supervised", "loss/vat", "loss/entmin"] {
        assert!(step["metrics"][name].is_f64(), "{name} in {step}");
    }
}

/// A terminal of 200 columns: our end, and the program's end.
fn terminal() -> (File, File) {
    let size = libc::winsize { ws_row: 25, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the two numbers are written by `openpty` and owned from then on.
    unsafe {
        let (mut ours, mut theirs) = (0, 0);
        let (name, termios) = (std::ptr::null_mut(), std::ptr::null());
        assert_eq!(libc::openpty(&mut ours, &mut theirs, name, termios, &size), 0);
        (File::from_raw_fd(ours), File::from_raw_fd(theirs))
    }
}

#[test]
fn a_terminal_has_a_bar_with_the_same() {
    let scratch = labelled_shards();
    let (mut ours, theirs) = terminal();
    let line = pretrain_words("vat_entmin", "model", "-s schedule=[1,100000] --max-seconds 4");
    let mut child = Command::new(PRETRAIN)
        .args(words(&line.replace(" -q", "")))
        .current_dir(scratch.path("."))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    // The last program with the other end has ended: EIO.
    while let Ok(length @ 1..) = ours.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let shown = String::from_utf8_lossy(&shown);
    for word in
        ["steps      600000 ", "time       about ", "/600000 ", " images/s, ", ", loss/vat "]
    {
        assert!(shown.contains(word), "{word:?} in {shown}");
    }
    assert!(!shown.contains("\nstep "), "{shown}");
}

/// A number of a protocol buffer, removed from its start.
fn varint(bytes: &mut &[u8]) -> u64 {
    let length = 1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    number.iter().rev().fold(0, |all, byte| all << 7 | u64::from(byte & 0x7f))
}

/// Wall time, step and name of the events in TensorBoard's file; `None` if its last record is incomplete.
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
        // A read may meet a write in its middle; the next read does not.
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
    // The kill cut the last record.
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
    let ended =
        crate::common::training::signalled(&scratch, PRETRAIN, &line, log, &[libc::SIGTERM]);
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

#[test]
fn a_run_without_recipe_says_so_and_what_it_would_do() {
    let scratch = labelled_shards();
    let line = "--in shards --labelled labelled.parquet --out model --max-memory 3000 --threads 1";
    let ran = scratch.run(PRETRAIN, &words(line));
    assert_eq!(ran.code, 78, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 6, "{}", ran.stderr);
    for (line, start) in lines.iter().zip([
        "no --recipe and no --set: every setting has its default, see --settings",
        "method     supervised, ",
        "network    [3, 4, 6, 3] units, width factor 4, Imagenet stem, 224x224x1 images, ",
        "data       10 classes, 100 labelled images (256 a step), ",
        "steps      200 (1 an epoch), 256 images each",
        "error: s4l-pretrain: training with batch=256 needs about ",
    ]) {
        assert!(line.starts_with(start), "{start:?} in {}", ran.stderr);
    }
    let fits = "; the largest that would fit is -s batch=";
    assert!(lines[5].contains(" MB of memory, and --max-memory allows 3000 MB"), "{}", lines[5]);
    assert!(lines[5].contains(fits), "{}", lines[5]);
    // Without the option it is refused too.
    scratch.run(PRETRAIN, &words(&format!("{line} -q"))).fails(78, &[fits]);
    assert!(!scratch.path("model").exists());
}

#[test]
fn a_step_of_one_value_a_channel_is_pointed_out() {
    let scratch = labelled_shards();
    let tiny = "-s augment_labelled=resize(8)|-1_to_1 -s augment_eval=resize(8)|-1_to_1";
    let more =
        |batch: usize| format!("{tiny} -s units=[1,1,1] -s batch={batch} -s schedule=[0,0.05]");
    let run = |batch: usize| {
        pretrain(&scratch, "supervised_1p", &format!("b{batch}"), &more(batch)).ok().stderr
    };
    let word = "warning: a step has one image, and its last layers see one pixel";
    assert!(run(1).starts_with(word));
    assert_eq!(run(2), "");
}
