#!/usr/bin/env bash
# Puts the programs that the chart is tested and documented with into a folder: helm-unittest, helm-docs.
#
# Usage: build.sh [DIR]
#
# DIR is the folder for these versions' programs; without it, .cache/chart/VERSIONS at the top of the
# repository. The folder to use is the last line on standard output; everything else goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib/go_programs.sh"

programs=(helm-unittest helm-docs)

fill() {
  local dir=$1 docs=$2
  take "$dir"
  # Another run may have built them while this one waited.
  if holds "$dir" "${programs[@]}"; then return; fi
  require_go "$here"
  say "building ${programs[*]} into $dir; the first time takes minutes"
  [[ -x $dir/helm-unittest ]] ||
    build_program "$dir" "$here" github.com/helm-unittest/helm-unittest/cmd/helm-unittest helm-unittest '-s -w'
  [[ -x $dir/helm-docs ]] ||
    build_program "$dir" "$here" github.com/norwoodj/helm-docs/cmd/helm-docs helm-docs "-s -w -X main.version=${docs#v}"
}

main() {
  local unittest docs dir
  [[ $# -le 1 && ${1-} != -* ]] || die "usage: ${0##*/} [DIR]"
  unittest=$(module_version "$here/go.mod" github.com/helm-unittest/helm-unittest)
  docs=$(module_version "$here/go.mod" github.com/norwoodj/helm-docs)
  dir=$(realpath -m "${1:-$here/../../.cache/chart/helm-unittest-$unittest-helm-docs-$docs}")
  clean_up_at_exit
  if ! holds "$dir" "${programs[@]}"; then fill "$dir" "$docs"; fi
  printf '%s\n' "$dir"
}

main "$@"
