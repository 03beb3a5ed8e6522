#!/usr/bin/env bash
# Puts the Kubernetes control plane the tests run against into a folder:
# etcd, kube-apiserver, kube-controller-manager and kubectl.
#
# Usage: build.sh [DIR]
#
# DIR is the folder for this version's programs; without it,
# .cache/kubernetes/VERSION at the top of the repository. The folder to use is
# the last line on standard output; everything else goes to standard error.
#
# KUBEBUILDER_ASSETS may name a folder that already holds etcd, kube-apiserver
# and kubectl; these are used then, and only kube-controller-manager is built
# if that folder has none.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# All but etcd are built from the Go module next to this script. etcd is first:
# a missing permission shows before minutes of building.
programs=(etcd kube-apiserver kube-controller-manager kubectl)
# What KUBEBUILDER_ASSETS holds by convention: no kube-controller-manager.
conventional=(etcd kube-apiserver kubectl)
build=''
work=''

say() { printf '%s\n' "kubernetes: $*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# go.mod alone says which version is built.
kubernetes_version() {
  awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2; exit }' "$here/go.mod"
}

# Whether folder $1 holds all the programs named after it.
holds() {
  local dir=$1 program
  shift
  for program in "$@"; do
    [[ -x $dir/$program ]] || return 1
  done
}

# A test run that is cut short must leave neither compilers running nor half a
# program behind. go does not end its compilers when it ends: the whole process
# group goes.
clean_up() {
  [[ -z $build ]] || { kill -- "-$build" && wait "$build"; } 2>/dev/null || true
  [[ -z $work ]] || rm -rf "$work"
}

# Makes folder $1 and takes it for this process, so that test runs started side
# by side build once.
take() {
  mkdir -p "$1"
  # The folder ignores itself, wherever it is.
  echo '*' >"$1/.gitignore"
  exec 9>"$1/.lock"
  flock --nonblock 9 && return
  say "waiting for another build in $1"
  flock 9
}

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

# Builds program $2 of version $3 into folder $1, telling how far it is.
build_program() {
  local dir=$1 program=$2 version=$3 start=$SECONDS flags log shown=0
  flags=$(linker_flags "$version")
  # On the file system of the result, so that renaming is all it takes. A killed
  # build may have left it.
  work=$dir/.work
  log=$work/log
  rm -rf "$work"
  mkdir "$work"
  say "$program: building"
  # setsid: a process group of its own, for clean_up. nice: all cores are used,
  # yet the machine stays usable. No cgo: no C compiler is needed, and the
  # programs are static. The compiler shares the lock, so that one that outlives
  # a killed script still keeps others out.
  (
    cd "$here"
    CGO_ENABLED=0 GOTMPDIR=$work exec setsid nice -n 10 \
      go build -v -trimpath -buildvcs=false -ldflags "$flags" \
      -o "$work/$program" "k8s.io/kubernetes/cmd/$program"
  ) >"$log" 2>&1 &
  build=$!
  while kill -0 "$build" 2>/dev/null; do
    if ((SECONDS - start - shown >= 20)); then
      shown=$((SECONDS - start))
      say "$program: $shown s, $(grep -vc '^go: ' "$log" || true) packages compiled"
    fi
    sleep 0.5
  done
  if ! wait "$build"; then
    build=''
    tail -n 20 "$log" >&2
    die "$program did not build"
  fi
  build=''
  # Renaming comes last: a program is either whole or not there.
  mv "$work/$program" "$dir/$program"
  rm -rf "$work"
  work=''
  say "$program: built in $((SECONDS - start)) s"
}

# Puts those of the programs named after folder $1 and version $2 there that it
# does not hold.
fill() {
  local dir=$1 version=$2 program missing=()
  shift 2
  take "$dir"
  for program in "$@"; do
    [[ -x $dir/$program ]] || missing+=("$program")
  done
  # Another run may have built them while this one waited.
  [[ ${#missing[@]} -gt 0 ]] || return 0
  say "putting ${missing[*]} ($version) into $dir; the first time takes minutes"
  [[ ${missing[*]} == etcd ]] || require_go "$version"
  for program in "${missing[@]}"; do
    case $program in
      etcd) link_etcd "$dir" ;;
      *) build_program "$dir" "$program" "$version" ;;
    esac
  done
}

require_go() {
  local least
  least=$(awk '$1 == "go" { print $2 }' "$here/go.mod")
  [[ -n $(type -P go) ]] || die "go is not on PATH; Kubernetes $1 needs Go $least or newer"
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
  local version dir assets=''
  [[ $# -le 1 && ${1-} != -* ]] || die "usage: ${0##*/} [DIR]"
  version=$(kubernetes_version)
  dir=$(realpath -m "${1:-$here/../../.cache/kubernetes/$version}")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [[ -n ${KUBEBUILDER_ASSETS-} ]]; then
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
