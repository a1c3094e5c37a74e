#!/usr/bin/env bash
# ranks.sh [ROUNDS]: training of fashion's supervised_1p on two ranks of one thread, against one process of two threads,
# in shared memory and over 1 Gb/s, at width factor 1 and 4: steps a second, and the share of the time that a rank waits
# for the other. Alternating rounds (3), a line each, then the medians. $BIN is a folder of programs that were built
# with --features mpi, $MORE more options of the trainings, such as "-s sync_batch_norm=false". Takes 2 minutes a round on two cores.
#
# Needs root, for two network namespaces, and on Debian:
#   apt-get install -y --no-install-recommends openmpi-bin libopenmpi-dev pkg-config iproute2
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
dir=$(mktemp -d /tmp/s4l-ranks-XXXXXX)
if [ -z "${BIN:-}" ]; then
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/mpi
  cargo build --release --locked --features mpi --bins
  BIN=$CARGO_TARGET_DIR/release
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
down() {
  for nth in 0 1; do ip netns del "s4l$nth" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap down EXIT
for nth in 0 1; do
  ip netns add "s4l$nth"
  ip netns exec "s4l$nth" ip link set lo up
done
ip link add s4l-v0 netns s4l0 type veth peer name s4l-v1 netns s4l1
for nth in 0 1; do
  ip netns exec "s4l$nth" ip addr add "10.9.0.$((nth + 1))/24" dev "s4l-v$nth"
  ip netns exec "s4l$nth" ip link set "s4l-v$nth" up
  ip netns exec "s4l$nth" tc qdisc add dev "s4l-v$nth" root tbf rate 1gbit burst 128kb latency 20ms
done
# mpirun starts the second host's programs by this, as by ssh.
cat >"$dir/agent" <<'A'
#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
shift
exec ip netns exec s4l1 unshare --uts bash -c 'hostname n1; eval "$0"' "$*"
A
chmod +x "$dir/agent"
over_network() {
  ip netns exec s4l0 unshare --uts bash -c 'hostname n0; exec "$@"' - mpirun --host 10.9.0.1:1,10.9.0.2:1 -n 2 \
    --mca plm rsh --mca plm_rsh_agent "$dir/agent" --mca btl tcp,self --mca btl_tcp_if_include 10.9.0.0/24 \
    --mca oob_tcp_if_include 10.9.0.0/24 --bind-to none "$@"
}
make -s PIPELINE=fashion BIN="$BIN" OUT="$dir" "$dir/seed0/labelled_1p.parquet" >/dev/null
# case_of NAME WIDTH THREADS STARTER...
case_of() {
  local schedule='[2,60,80,90,160]'
  [ "$2" = 1 ] || schedule='[2,10,12,14,26]'
  # shellcheck disable=SC2086
  "${@:4}" "$BIN/s4l-pretrain" --in "$dir/shards" --labelled "$dir/seed0/labelled_1p.parquet" --force --threads "$3" \
    --recipe pipelines/fashion/supervised_1p.toml -s "width_factor=$2" -s "schedule=$schedule" ${MORE:-} \
    -s checkpoint_every=100000 --out "$dir/model" 2>&1 |
    sed -nE "s#.* ([0-9.]+) a second, .* for images(, ([0-9.]+)% between.*)?#$1 \1 \3#p" | tee -a "$dir/figures"
}
for round in $(seq "$rounds"); do
  for width in 1 4; do
    case_of "width $width, one process:" "$width" 2 env
    case_of "width $width, two ranks:" "$width" 1 mpirun -n 2
    case_of "width $width, two ranks over 1 Gb/s:" "$width" 1 over_network
  done
done
echo "medians of $rounds rounds: steps a second, percent of the time between the ranks"
sort -t: -k1,1 -k2,2n "$dir/figures" | awk -F: '
  $1 != last { if (n) print last ": " rate[int((n + 1) / 2)] " " share[int((n + 1) / 2)]; n = 0; last = $1 }
  { n++; split($2, of, " "); rate[n] = of[1]; share[n] = of[2] }
  END { print last ": " rate[int((n + 1) / 2)] " " share[int((n + 1) / 2)] }'
