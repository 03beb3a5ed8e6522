#!/usr/bin/env bash
# Installs what is lacking, builds the control plane's programs into .cache, and runs every check and test.
#
# Usage: tests/run.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

step() { printf '\n== %s (%s s so far)\n' "$*" "$SECONDS"; }

install_cargo_deny() {
  local version=0.20.2
  local tool=$root/.cache/tools/cargo-deny-$version
  if [ ! -x "$tool/bin/cargo-deny" ]; then
    echo "installing cargo-deny $version (minutes, the first time)"
    cargo install --quiet --locked --version "$version" --no-default-features --root "$tool" \
      --target-dir "$root/target/cargo-deny" cargo-deny
  fi
  PATH="$tool/bin:$PATH"
}

step 'what is needed'
tests/install.sh e2e chart redis
for component in rustfmt clippy; do
  cargo "${component#rust}" --version >/dev/null 2>&1 || rustup component add "$component"
done

step 'format'
cargo fmt --check

step 'shell scripts and Dockerfile'
tests/lint.sh

step 'lints'
cargo clippy --locked --all-targets -- -D warnings

step 'licences and sources of dependencies'
install_cargo_deny
cargo deny --locked check licenses sources bans

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --lib --quiet

step 'control plane'
tests/kubernetes/build.sh >/dev/null

step 'tests'
# A snapshot that differs or is missing fails, and nothing is written.
INSTA_UPDATE=no cargo test --locked --no-fail-fast

step 'Helm chart'
tests/chart/run.sh

step 'end to end'
tests/e2e/run.sh

step 'speed'
tests/bench/run.sh --check

step 'done'
