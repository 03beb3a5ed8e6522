#!/usr/bin/env bash
# Puts coredns into a folder.
#
# Usage: build.sh [DIR]
#
# DIR is the folder for this version; without it, .cache/coredns/VERSION at the top of the repository. The
# folder to use is the last line on standard output; everything else goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../lib/go_programs.sh"

main() {
  local version dir
  [[ $# -le 1 && ${1-} != -* ]] || die "usage: ${0##*/} [DIR]"
  version=$(module_version "$here/go.mod" github.com/coredns/coredns)
  dir=$(realpath -m "${1:-$here/../../../.cache/coredns/$version}")
  clean_up_at_exit
  if ! holds "$dir" coredns; then
    take "$dir"
    require_go "$here"
    # Another run may have built it while this one waited.
    holds "$dir" coredns || build_program "$dir" "$here" . coredns '-s -w'
  fi
  printf '%s\n' "$dir"
}

main "$@"
