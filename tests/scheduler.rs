//! What a stage takes from a scheduler: how many tasks its step has.

mod common;

use common::{SMOKE, Scratch};
use std::process::{Command, Output};

const SHARD: &str = env!("CARGO_BIN_EXE_s4l-shard");

/// `s4l-shard` in an environment.
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
        // For another command line each task has, as the shell of a job of one task.
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
