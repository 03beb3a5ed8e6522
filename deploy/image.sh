#!/usr/bin/env bash
# Makes the image of deploy/Dockerfile without a container engine, as an archive that `ctr images import`,
# `docker load`, `podman load` and `skopeo` read.
#
# Usage: deploy/image.sh [--tag NAME:TAG] [--label-version VERSION] FILE
#
#   --tag NAME:TAG           how the image is called (localhost/outpost-migrate-redis:VERSION)
#   --label-version VERSION  what the image's label says its version is (that of Cargo.toml); the program in it
#                            goes on saying its own
#   FILE                     where the OCI archive goes
#
# It needs Rust, musl-gcc (Debian: musl-tools) and buildah; root, or a user namespace for buildah.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=x86_64-unknown-linux-musl
work=''

die() {
  printf 'image: error: %s\n' "$*" >&2
  exit 1
}

need() { command -v "$1" >/dev/null || die "$1 is needed; on Debian, as root: apt-get install $2"; }

version() { sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$root/Cargo.toml"; }

revision() {
  local commit
  commit=$(git -C "$root" rev-parse HEAD 2>/dev/null) || { echo unknown && return; }
  # Nothing passes for a commit that is not one.
  git -C "$root" diff --quiet HEAD 2>/dev/null || commit+=-modified
  printf '%s\n' "$commit"
}

# What the Dockerfile's build stage leaves in /out, in folder $1.
compile() {
  local out=$1 binary
  rustup target list --installed 2>/dev/null | grep -qx "$target" || rustup target add "$target" >&2
  (cd "$root" &&
    CC_x86_64_unknown_linux_musl=musl-gcc \
      cargo build --quiet --release --locked --target "$target" --bin outpost-migrate-redis) >&2
  binary=${CARGO_TARGET_DIR:-$root/target}/$target/release/outpost-migrate-redis
  mkdir -p "$out"
  install -t "$out" "$binary"
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$out"
}

main() {
  local tag='' label file storage
  label=$(version)
  while [ $# -gt 1 ]; do
    case $1 in
      --tag) tag=$2 ;;
      --label-version) label=$2 ;;
      *) die "$1 is no option" ;;
    esac
    shift 2
  done
  [ $# = 1 ] || die "usage: deploy/image.sh [--tag NAME:TAG] [--label-version VERSION] FILE"
  case $1 in -*) die "$1 is no option" ;; esac
  file=$(realpath -m "$1")
  : "${tag:=localhost/outpost-migrate-redis:$(version)}"
  need cargo rustup
  need musl-gcc musl-tools
  need buildah buildah
  [ -r /etc/ssl/certs/ca-certificates.crt ] || die 'the public roots are needed; on Debian: apt-get install ca-certificates'

  work=$(mktemp -d "${TMPDIR:-/tmp}/outpost-image.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  compile "$work/build/out"
  # The base image of the build stage can't be had without a registry; the stage that counts is taken word for
  # word, and finds what the build stage would have left.
  sed -n '/^FROM scratch/,$p' "$root/deploy/Dockerfile" >"$work/Dockerfile"
  mkdir "$work/context"
  storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")
  # One commit, one image: no clock in it.
  buildah "${storage[@]}" bud --quiet --isolation chroot --format oci --build-context "build=$work/build" \
    --timestamp "$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)" \
    --build-arg "VERSION=$label" --build-arg "REVISION=$(revision)" \
    --tag "$tag" -f "$work/Dockerfile" "$work/context" >&2
  mkdir -p "$(dirname "$file")"
  rm -f "$file"
  buildah "${storage[@]}" push --quiet "$tag" "oci-archive:$file:$tag" >&2
  printf '%s\n' "$file"
}

main "$@"
