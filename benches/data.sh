#!/usr/bin/env bash
# Speed of the loader compared with other loaders on this machine's CPU:
# benches/data.sh [rows28|blobs|cold|jpeg500|jpeg1600 ...]. Nothing else should run meanwhile.
# The other loaders are installed into target/data-venv (some gigabytes); $PYTHON names a Python that has
# them.
# The photographs are crops of Debian's wallpapers, or of the JPEG files below $PHOTOS.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=target/data-venv/bin/python
    if [[ ! -e target/data-venv/complete ]]; then
        python3 -m venv target/data-venv
        target/data-venv/bin/pip install --quiet torch==2.15.0 torchvision==0.29.1 \
            datasets==5.0.1 mosaicml-streaming==0.13.0 numpy==2.1.3 pyarrow==26.0.1 pillow==13.0.0
        # FFCV has no wheels: it takes part if a C++ compiler, pkg-config, libopencv-dev and
        # libturbojpeg0-dev are there to build it.
        target/data-venv/bin/pip install --quiet ffcv || echo "benches/data.sh: without FFCV" >&2
        touch target/data-venv/complete
    fi
fi
if [[ -z ${PHOTOS:-} ]]; then
    PHOTOS=target/bench-data/wallpapers
    if [[ ! -e $PHOTOS ]]; then
        packages=$(mktemp -d)
        trap 'rm -rf "$packages"' EXIT
        (cd "$packages" && apt-get download mate-backgrounds lomiri-wallpapers-16.04)
        for package in "$packages"/*.deb; do
            dpkg-deb -x "$package" "$packages/files"
        done
        mkdir -p target/bench-data
        mv "$packages/files" "$PHOTOS"
    fi
fi
cargo build --release --bin s4l-shard
ours=$(cargo bench --bench data --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*data-[^"]*\)".*/\1/p')
if [[ $(uname -m) == x86_64 ]] && ! grep -q jsimd_idct_islow_avx2 "$ours"; then
    echo "benches/data.sh: built without nasm, so JPEG decoding lacks its SIMD code: install nasm," \
        "then cargo clean --release -p mozjpeg-sys" >&2
    exit 1
fi
exec "$PYTHON" -W ignore benches/data.py "$ours" "$PHOTOS" "$@"
