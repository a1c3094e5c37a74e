#!/usr/bin/env bash
# check-arm.sh [RUSTC]: the programs and tests are built for Linux on 64-bit ARM. An emulator runs the golden tests,
# those of the engine and of the methods, and S4L-Rotation of the smoke pipeline, whose model must have the bytes of
# this machine's programs. Prints CHECK arm. It needs qemu-user, gcc-aarch64-linux-gnu, libc6:arm64, and a compiler for
# the target: by `rustup target add aarch64-unknown-linux-gnu`, or Debian's rustc-web with libstd-rust-web-dev:arm64 and
# /usr/bin/rustc as RUSTC. Takes fifteen minutes on two cores, nearly all for the build, in target/arm.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
emulator="qemu-aarch64 -L /"
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
make -s s4l_rotation PIPELINE=smoke OUT="$results/here" ${BIN:+BIN="$BIN"}

export CARGO_TARGET_DIR=$PWD/target/arm CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
tests=$(${1:+env RUSTC="$1"} cargo test --release --locked --no-run --target $target --bins --test golden --test training \
  --message-format=json-render-diagnostics | grep -oE '"executable":"[^"]*/(golden|training)-[^"]*"' | cut -d'"' -f4)
for test in $tests; do
  case $test in
    */golden-*) $emulator "$test" --skip curves:: ;;
    *) $emulator "$test" trunk:: losses:: methods:: --skip gpu ;;
  esac
done

mkdir "$results/bin"
for program in shard subset pretrain eval report; do
  printf '#!/bin/sh\nexec %s %s "$@"\n' "$emulator" "$CARGO_TARGET_DIR/$target/release/s4l-$program" >"$results/bin/s4l-$program"
  chmod +x "$results/bin/s4l-$program"
done
make -s s4l_rotation PIPELINE=smoke OUT="$results/arm" BIN="$results/bin"
for file in model/model.safetensors eval.parquet; do
  cmp "$results"/{here,arm}/seed0/s4l_rotation/"$file"
done
echo "CHECK arm tests=ok bytes=same"
