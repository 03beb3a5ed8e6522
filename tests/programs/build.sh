#!/usr/bin/env bash
# Puts the programs that the chart's checks and the end-to-end test use into a folder: helm, kubeconform, helm-unittest,
# helm-docs, coredns, chart-types, kube-score.
#
# Usage: build.sh [PROGRAM…]
#
# Without a PROGRAM, all of them. The folder, .cache/programs/VERSION at the top of the repository, is the last line on
# standard output; everything else goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib/go_programs.sh"

programs=(helm kubeconform helm-unittest helm-docs coredns chart-types kube-score)

# Builds those of the programs named after folder $1 that it does not hold.
fill() {
  local dir=$1 program packages=() docs='' score=''
  shift
  take "$dir"
  # Another run may have built them while this one waited.
  for program in $(lacking "$dir" "$@"); do
    case $program in
      helm) packages+=(helm.sh/helm/v4/cmd/helm) ;;
      kubeconform) packages+=(github.com/yannh/kubeconform/cmd/kubeconform) ;;
      helm-unittest) packages+=(github.com/helm-unittest/helm-unittest/cmd/helm-unittest) ;;
      coredns | chart-types) packages+=("./$program") ;;
      helm-docs) docs=github.com/norwoodj/helm-docs/cmd/helm-docs ;;
      kube-score) score=github.com/zegl/kube-score/cmd/kube-score ;;
      *) die "$program is none of: ${programs[*]}" ;;
    esac
  done
  require_go "$here"
  [[ ${#packages[@]} -eq 0 ]] || build_programs "$dir" "$here" \
    "$(names_version helm.sh/helm/v4/internal/version helm.sh/helm/v4) $(names_version main github.com/yannh/kubeconform)" \
    "${packages[@]}"
  # Each of these calls its version main.version too.
  [[ -z $docs ]] || build_programs "$dir" "$here" "$(names_version main github.com/norwoodj/helm-docs)" "$docs"
  [[ -z $score ]] || build_programs "$dir" "$here/kube-score" "$(names_version main github.com/zegl/kube-score)" "$score"
}

# The linker's flags that make a program say its version: names_version PACKAGE MODULE
names_version() {
  local file=$here/go.mod version
  [[ $2 != */kube-score ]] || file=$here/kube-score/go.mod
  version=$(module_version "$file" "$2")
  # Helm's own releases say it with the v, the others without.
  [[ $1 != main ]] || version=${version#v}
  printf -- '-s -w -X %s.version=%s' "$1" "$version"
}

main() {
  local version dir
  [[ $# -gt 0 ]] || set -- "${programs[@]}"
  # Whatever a program is built from names the folder.
  version=$(cd "$here" && cat go.mod go.sum kube-score/go.mod coredns/main.go chart-types/main.go | sha256sum | cut -c 1-12)
  dir=$(realpath -m "$here/../../.cache/programs/$version")
  clean_up_at_exit
  holds "$dir" "$@" || fill "$dir" "$@"
  printf '%s\n' "$dir"
}

main "$@"
