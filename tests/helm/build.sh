#!/usr/bin/env bash
# Puts the programs that the chart is installed and checked with into a folder: helm, kubeconform, kube-score.
#
# Usage: build.sh [DIR]
#
# DIR is the folder for these versions' programs; without it, .cache/helm/VERSIONS at the top of the
# repository. The folder to use is the last line on standard output; everything else goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib/go_programs.sh"

programs=(helm kubeconform kube-score)

fill() {
  local dir=$1 helm=$2
  take "$dir"
  # Another run may have built them while this one waited.
  if holds "$dir" "${programs[@]}"; then return; fi
  require_go "$here"
  say "building ${programs[*]} into $dir; the first time takes minutes"
  [[ -x $dir/helm ]] || build_program "$dir" "$here" helm.sh/helm/v4/cmd/helm helm \
    "-s -w -X helm.sh/helm/v4/internal/version.version=$helm"
  [[ -x $dir/kubeconform ]] || build_program "$dir" "$here" github.com/yannh/kubeconform/cmd/kubeconform kubeconform \
    "-s -w -X main.version=$(module_version "$here/go.mod" github.com/yannh/kubeconform)"
  [[ -x $dir/kube-score ]] || build_program "$dir" "$here/kube-score" github.com/zegl/kube-score/cmd/kube-score kube-score \
    "-s -w -X main.version=$(module_version "$here/kube-score/go.mod" github.com/zegl/kube-score)"
}

main() {
  local helm kubeconform score dir
  [[ $# -le 1 && ${1-} != -* ]] || die "usage: ${0##*/} [DIR]"
  helm=$(module_version "$here/go.mod" helm.sh/helm/v4)
  kubeconform=$(module_version "$here/go.mod" github.com/yannh/kubeconform)
  score=$(module_version "$here/kube-score/go.mod" github.com/zegl/kube-score)
  dir=$(realpath -m "${1:-$here/../../.cache/helm/$helm-kubeconform-$kubeconform-kube-score-$score}")
  clean_up_at_exit
  if ! holds "$dir" "${programs[@]}"; then fill "$dir" "$helm"; fi
  printf '%s\n' "$dir"
}

main "$@"
