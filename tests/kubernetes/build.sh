#!/usr/bin/env bash
# Puts the Kubernetes control plane the tests run against into a folder:
# etcd, kube-apiserver, kube-controller-manager and kubectl; with --node also
# what a whole node takes: kube-scheduler, kubelet and kube-proxy.
#
# Usage: build.sh [--node] [DIR]
#
# DIR is the folder for this version's programs; without it,
# .cache/kubernetes/VERSION at the top of the repository. The folder to use is
# the last line on standard output; everything else goes to standard error.
#
# KUBEBUILDER_ASSETS may name a folder that already holds etcd, kube-apiserver
# and kubectl; these are used then, and only kube-controller-manager is built
# if that folder has none. It is not asked with --node: a kubelet must not be
# newer than its API server, so all are of one version.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# All but etcd are built from the Go module next to this script. etcd is first:
# a missing permission shows before minutes of building.
programs=(etcd kube-apiserver kube-controller-manager kubectl)
node_programs=(kube-scheduler kube-proxy kubelet)
# What KUBEBUILDER_ASSETS holds by convention: no kube-controller-manager.
conventional=(etcd kube-apiserver kubectl)
. "$here/../lib/go_programs.sh"

# go.mod alone says which version is built.
kubernetes_version() { module_version "$here/go.mod" k8s.io/kubernetes; }

# Debian's etcd will do: one program less to build.
link_etcd() {
  local dir=$1 etcd
  etcd=$(type -P etcd) || {
    install_etcd
    etcd=$(type -P etcd) || die 'etcd-server is installed, but etcd is not on PATH'
  }
  ln -sfn "$(realpath "$etcd")" "$dir/etcd"
  say "etcd: $(realpath "$etcd")"
}

install_etcd() {
  local command='apt-get update && apt-get install -y --no-install-recommends etcd-server'
  [[ $(id -u) -eq 0 && -n $(type -P apt-get) ]] ||
    die "etcd is not on PATH; as root, run: $command"
  say 'etcd: installing etcd-server'
  # Without the lock: the package may start a service that would keep it.
  DEBIAN_FRONTEND=noninteractive bash -c "$command" >&2 9>&- || die "failed: $command"
}

# Without the version the server reports v0.0.0 and clients misbehave. client-go
# has a version of its own, for the user agent.
linker_flags() {
  local version=$1 major minor package flags='-s -w'
  IFS=. read -r major minor _ <<<"${version#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major"
    flags+=" -X $package.gitMinor=$minor"
  done
  printf '%s' "$flags"
}

# Puts those of the programs named after folder $1 and version $2 there that it
# does not hold.
fill() {
  local dir=$1 version=$2 program packages=()
  shift 2
  take "$dir"
  # Another run may have built them while this one waited.
  for program in $(lacking "$dir" "$@"); do
    case $program in
      etcd) link_etcd "$dir" ;;
      *) packages+=("k8s.io/kubernetes/cmd/$program") ;;
    esac
  done
  [[ ${#packages[@]} -gt 0 ]] || return 0
  require_go "$here"
  say "Kubernetes $version, into $dir"
  build_programs "$dir" "$here" "$(linker_flags "$version")" "${packages[@]}"
}

# Uses the programs of folder $3, in a folder of links beside a
# kube-controller-manager of ours in $1 if $3 has none. Prints the folder.
use_assets() {
  local dir=$1 version=$2 assets=$3 links program
  if [[ -x $assets/kube-controller-manager ]]; then
    say "using KUBEBUILDER_ASSETS: $assets"
    printf '%s\n' "$assets"
    return
  fi
  say "using KUBEBUILDER_ASSETS: $assets (with kube-controller-manager $version from $dir)"
  # Other assets, other links: neither those nor our own programs are replaced.
  links=$dir/assets-$(cksum <<<"$assets" | cut -d ' ' -f 1)
  if ! holds "$links" "${conventional[@]}" kube-controller-manager; then
    fill "$dir" "$version" kube-controller-manager
    mkdir -p "$links"
    for program in "${conventional[@]}"; do
      ln -sfn "$assets/$program" "$links/$program"
    done
    ln -sfn ../kube-controller-manager "$links/kube-controller-manager"
  fi
  printf '%s\n' "$links"
}

main() {
  local version dir assets='' node=no
  if [[ ${1-} == --node ]]; then
    node=yes
    programs+=("${node_programs[@]}")
    shift
  fi
  [[ $# -le 1 && ${1-} != -* ]] || die "usage: ${0##*/} [--node] [DIR]"
  version=$(kubernetes_version)
  dir=$(realpath -m "${1:-$here/../../.cache/kubernetes/$version}")
  clean_up_at_exit
  if [[ $node == no && -n ${KUBEBUILDER_ASSETS-} ]]; then
    assets=$(realpath -m "$KUBEBUILDER_ASSETS")
    if holds "$assets" "${conventional[@]}"; then
      use_assets "$dir" "$version" "$assets"
      return
    fi
    say "KUBEBUILDER_ASSETS ($assets) does not hold ${conventional[*]}; not using it"
  fi
  if ! holds "$dir" "${programs[@]}"; then
    fill "$dir" "$version" "${programs[@]}"
  fi
  printf '%s\n' "$dir"
}

main "$@"
