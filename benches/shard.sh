#!/usr/bin/env bash
# Speed and memory of s4l-shard, one line per comparison:
#   BENCH data/shard         MB/s, against cp and b3sum of the same tar of 20,000 JPEGs
#   BENCH data/shard_synced  the same, with the copy brought to the disk, as shards are
#   BENCH data/shard_memory  peak MB for 200,000 images, against that for 2,000
#   BENCH data/plan_memory   peak MB of the plan of 15,000,000 images in a tar, against the limit of 1,500
#   BENCH data/list_memory   the same with a list of labels of as many lines
#   BENCH data/open_memory   the same of opening their shards
# Needs 8 GB in target/. The page cache is warm; the speed of the disk affects the first two lines.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo install --quiet --locked --root target/b3sum --version ^1.8 b3sum
cargo build --release --quiet --locked
PATH="$PWD/target/b3sum/bin:$PATH" cargo bench --quiet --locked --bench shard
cargo bench --quiet --locked --bench scale
