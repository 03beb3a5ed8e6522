#!/usr/bin/env bash
# Builds the benchmark for release and runs it. README.md beside this says what its lines mean.
#
# Usage: tests/bench/run.sh [--entries 100k|1m|10m] [--rounds N] [--only PART…] [--json FILE]
#        tests/bench/run.sh --check      fails if a share of the limit is below its floor (a minute, once built)
#        tests/bench/run.sh --build      builds it, and runs nothing
#        tests/bench/run.sh --pure       micro-benchmarks of what needs no Redis
set -euo pipefail

here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ "${1-}" = --pure ]; then
  shift
  exec cargo bench --quiet --locked --bench pure -- "$@"
fi
for program in redis-server redis-benchmark musl-gcc; do
  command -v "$program" >/dev/null || {
    echo "bench: error: $program is needed; on Debian, as root: apt-get install redis-server redis-tools musl-tools" >&2
    exit 1
  }
done
# Static, as the program ships: a run of the tests compiles the dependencies once for the image and for this.
target=x86_64-unknown-linux-musl
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
export CC_x86_64_unknown_linux_musl=musl-gcc
# Built first, so that no compiler runs beside what is measured.
cargo bench --quiet --locked --target "$target" --bench shares --no-run
[ "${1-}" != --build ] || exit 0
words=()
while [ $# -gt 0 ]; do
  words+=("$1")
  # cargo runs benchmarks in the package's folder; a file is meant where the caller stands.
  if [ "$1" = --json ] && [ $# -ge 2 ]; then
    shift
    words+=("$(cd "$here" && realpath -m "$1")")
  fi
  shift
done
exec cargo bench --quiet --locked --target "$target" --bench shares -- "${words[@]}"
