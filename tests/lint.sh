#!/usr/bin/env bash
# Checks what no compiler reads: the shell scripts with shellcheck, the Dockerfile, whose build stage no test runs here,
# with hadolint, and the Markdown files with rumdl.
#
# Usage: tests/lint.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$(tests/tools/install.sh):$PATH

# Those that are run; what they source is checked with them, since it uses what they set.
mapfile -t scripts < <(git ls-files --stage '*.sh' .ci/run | sed -n 's/^100755[^\t]*\t//p')
# SC1091, SC2013, SC2016: the environment that the lab writes, words without spaces, and text that is meant for
# another shell.
shellcheck --external-sources --check-sourced --source-path=SCRIPTDIR --source-path=tests/e2e/lib --exclude=SC1091,SC2013,SC2016 \
  "${scripts[@]}"
hadolint deploy/Dockerfile
mapfile -t pages < <(git ls-files '*.md')
rumdl check --quiet "${pages[@]}"
echo "lint: ${#scripts[@]} shell scripts, the Dockerfile and ${#pages[@]} Markdown files are clean"
