//! A GPU that cannot be used, or fails: one line that says why and what to do, and the exit code of the contract. The
//! driver and the libraries are tests/common/fake_cuda.c, so this needs none.

use crate::common::training::{PRETRAIN, labelled_shards, pretrain_words, words};
use crate::common::{Ran, Scratch};
use std::process::Command;

const LIBRARIES: [&str; 4] =
    ["libcuda.so.1", "libnvrtc.so.13", "libcudnn.so.9", "libcublasLt.so.13"];

/// Shards, and the fake libraries in the folder `lib`.
fn machine(libraries: &[&str]) -> Scratch {
    let scratch = labelled_shards();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/fake_cuda.c");
    let fake = scratch.write("lib/fake.so", "");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&fake).arg(source).status();
    assert!(made.unwrap().success());
    for name in libraries {
        std::fs::hard_link(&fake, scratch.path("lib").join(name)).unwrap();
    }
    scratch
}

/// Trains on the fake GPU, of which `fake` says what is different.
fn train(scratch: &Scratch, fake: &str, more: &str) -> Ran {
    let line = pretrain_words("supervised_10p", "model", more);
    let ran = Command::new(PRETRAIN)
        .args(words(&line))
        .current_dir(scratch.path(""))
        .env("LD_LIBRARY_PATH", scratch.path("lib"))
        .env("FAKE_CUDA", fake)
        .env("XDG_CACHE_HOME", scratch.path("cache"))
        .output()
        .unwrap();
    Ran {
        code: ran.status.code().unwrap(),
        stdout: String::from_utf8(ran.stdout).unwrap(),
        stderr: String::from_utf8(ran.stderr).unwrap(),
    }
}

#[test]
fn a_machine_without_what_a_gpu_needs() {
    let scratch = machine(&LIBRARIES[..2]);
    let names = ["cuDNN (libcudnn.so.9)", "cuBLASLt (libcublasLt.so.13)", "LD_LIBRARY_PATH"];
    train(&scratch, "", "--device cuda:0").fails(2, &names);
    // One that is damaged: the system says what it thinks of it.
    scratch.write("lib/libcudnn.so.9", "not a library");
    train(&scratch, "", "--device cuda:0")
        .fails(2, &["cuDNN (", "lib/libcudnn.so.9: file too short"]);
}

#[test]
fn a_gpu_that_cannot_be_used() {
    let scratch = machine(&LIBRARIES);
    for (fake, more, message) in [
        (
            "cuInit=803",
            "--device cuda",
            ["cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "nvidia-smi"],
        ),
        (
            "cuInit=100",
            "--device cuda",
            ["cuInit: CUDA_ERROR_NO_DEVICE (words of the driver)", "nvidia-smi"],
        ),
        ("driver=12040", "--device cuda", ["the driver is for CUDA 12.4", "newer driver"]),
        ("cudnn=8907", "--device cuda", ["cuDNN 8.9.7 is too old", "cuDNN 9"]),
        ("gpus=0", "--device cuda", ["there is no GPU", "CUDA_VISIBLE_DEVICES"]),
        ("gpus=2", "--device cuda:2", ["--device cuda:2: ", "there are 2 GPUs"]),
        (
            "cuDevicePrimaryCtxRetain=46",
            "--device cuda",
            ["cuDevicePrimaryCtxRetain", "DEVICE_UNAVAILABLE"],
        ),
        (
            "capability=75",
            "--device cuda --precision bf16",
            ["Fake GPU has no bfloat16", "--precision"],
        ),
        ("nvrtcCompileProgram=6", "--device cuda", ["nvrtcCompileProgram", "line 1 line 2"]),
        ("cudnnCreate=1002", "--device cuda", ["cudnnCreate", "words of cuDNN"]),
        ("cublasLtCreate=1", "--device cuda", ["cublasLtCreate", "NOT_INITIALIZED"]),
    ] {
        train(&scratch, fake, more).fails(2, &[message[0], message[1], "--device cuda:"]);
        assert!(!scratch.path("model").exists());
    }
}

#[test]
fn a_gpu_that_fails_in_the_middle() {
    let scratch = machine(&LIBRARIES);
    let more = "--device cuda -s schedule=[0,4] -s checkpoint_every=2";
    let checkpoint = scratch.path("model/checkpoint/state.safetensors");
    for fake in [
        "cuStreamSynchronize=719@40",
        "cuLaunchKernel=700@800",
        "cudnnBackendExecute=5000@100",
        "cublasLtMatmul=14@40",
        "cuMemcpyHtoDAsync_v2=999@40",
    ] {
        let call = fake.split(['=', '_']).next().unwrap();
        let hint = "run the same command again to go on from the last checkpoint";
        train(&scratch, fake, more).fails(74, &["the GPU failed: ", call, hint]);
        assert!(checkpoint.exists(), "{fake}");
        let ran = train(&scratch, "", more).ok();
        assert!(ran.stderr.is_empty(), "{}", ran.stderr);
        let provenance = std::fs::read_to_string(scratch.path("model.prov.json"));
        let provenance = provenance.unwrap();
        assert!(provenance.contains("Fake GPU, driver for CUDA 13.0, cuDNN 9.20.0"));
        // Which engine of cuDNN's computes which convolution.
        assert!(
            provenance.contains("WeightGradient 16x14x14x16 by 3x3/1 to 16, F32: eng"),
            "{provenance}"
        );
        std::fs::remove_dir_all(scratch.path("model")).unwrap();
    }
}

#[test]
fn a_gpu_without_enough_memory() {
    let scratch = machine(&LIBRARIES);
    let vat = "--device cuda -s method=vat -s weight_vat=1 -s unlabelled_batch=20 -s augment_unlabelled=resize(28)|-1_to_1";
    for (fake, more, hint) in [
        ("memory=1000", "--device cuda", "lower batch"),
        ("cuMemHostAlloc=2", "--device cuda", "lower batch"),
        // Before the first step, with what would fit; VAT needs more.
        ("memory=2000000", "--device cuda", "the largest that would fit is -s batch="),
        ("memory=6000000", vat, "the largest that would fit is -s batch="),
    ] {
        train(&scratch, fake, more).fails(78, &["GPU", " MB", hint]);
        assert!(!scratch.path("model").exists(), "{fake}");
    }
}
