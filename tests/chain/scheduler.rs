//! What a stage takes from a scheduler: the number of tasks in its step, the cores of a task, the name of
//! the job.

use crate::common::{SMOKE, Scratch};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

const SHARD: &str = env!("CARGO_BIN_EXE_s4l-shard");

/// Runs `s4l-shard` in an environment.
fn shard(scratch: &Scratch, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(SHARD);
    command.args(["--in", SMOKE, "--out", "shards", "-q"]).args(more);
    for name in ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_CPUS_PER_TASK"]
    {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).current_dir(scratch.path("")).output().unwrap()
}

#[test]
fn copies_of_one_command_are_refused() {
    let scratch = Scratch::new();
    for name in ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let ran = shard(&scratch, &[], &[(name, "4")]);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{said}");
        for word in ["4 tasks of one step", name, "srun -n1", "--part"] {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert_eq!(scratch.names(), Vec::<String>::new());
        // Allowed if each task has a command line of its own, or there is one task.
        for (more, tasks) in [(&["--part", "1/2", "--force"][..], "4"), (&["--force"], "1")] {
            let ran = shard(&scratch, more, &[(name, tasks)]);
            assert!(ran.status.success(), "{name}={tasks}: {ran:?}");
        }
        for entry in std::fs::read_dir(scratch.path("")).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
        }
    }
}

#[test]
fn the_sidecar_tells_of_the_job_and_its_cores() {
    let scratch = Scratch::new();
    let sidecar = |more: &[&str], variables: &[(&str, &str)]| -> Value {
        let ran = shard(&scratch, &[&["--force"], more].concat(), variables);
        assert!(ran.status.success(), "{ran:?}");
        let text = std::fs::read(scratch.path("shards.prov.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let plain = sidecar(&[], &[]);
    let known = ["AVX512-BF16", "AVX-512", "AVX2", "NEON", "any"];
    assert!(known.contains(&plain["instructions"].as_str().unwrap()), "{plain}");
    let cores = std::thread::available_parallelism().unwrap().get();
    for (cpus, more, threads) in [
        ("1", &[][..], 1),
        ("1000", &[], cores),
        ("two", &[], cores),
        ("1", &["--threads", "3"], 3),
    ] {
        let made = sidecar(more, &[("SLURM_CPUS_PER_TASK", cpus)]);
        assert_eq!(made["threads"], threads, "{cpus} {more:?}");
    }
    // A process that is bound to one core has one thread. (What the standard library takes for the cores of a
    // process is the smaller of its affinity mask and the quota of its control group.)
    let mut bound = Command::new(SHARD);
    bound
        .args(["--in", SMOKE, "--out", "shards", "-q", "--force"])
        .env_remove("SLURM_CPUS_PER_TASK");
    // SAFETY: both functions change the new process only, and take no memory.
    unsafe {
        bound.pre_exec(|| {
            let mut mask: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of::<libc::cpu_set_t>();
            libc::sched_getaffinity(0, size, &mut mask);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &mask));
            libc::CPU_ZERO(&mut mask);
            libc::CPU_SET(first.unwrap_or(0), &mut mask);
            match libc::sched_setaffinity(0, size, &mask) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    assert!(bound.current_dir(scratch.path("")).status().unwrap().success());
    let text = std::fs::read(scratch.path("shards.prov.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap()["threads"], 1);
    let job = [
        ("SLURM_JOB_ID", "4711"),
        ("SLURM_JOB_NODELIST", "node[03-04]"),
        ("SLURM_RESTART_COUNT", "2"),
    ];
    let made = sidecar(&[], &job);
    assert_eq!(made["job"], "4711");
    assert_eq!(made["nodes"], "node[03-04]");
    assert_eq!(made["restarts"], "2");
}
