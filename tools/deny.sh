#!/usr/bin/env bash
# Licences, sources, versions and advisories of all crates, by deny.toml. Prints "CHECK deny crates=N ok",
# or the errors and exits with 3. Arguments choose among: advisories licenses bans sources.
# Advisories are fetched from GitHub. Install: cargo install --locked cargo-deny
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --version >/dev/null || { echo "tools/deny.sh: cargo install --locked cargo-deny" >&2; exit 66; }
cargo deny check "${@:-all}" || exit 3
echo "CHECK deny crates=$(grep -c '^\[\[package\]\]' Cargo.lock) ok"
