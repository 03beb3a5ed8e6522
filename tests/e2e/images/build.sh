#!/usr/bin/env bash
# Makes the images of the end-to-end test's own pods as OCI archives in a folder:
#
#   localhost/e2e-pause:1  what holds a pod's namespaces
#   localhost/e2e-redis:1  Debian's redis-server and redis-cli, and a shell, for Redis and for the stand-ins of Outpost
#
# Usage: build.sh DIR
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib/say.sh"
work=''

# archive NAME:TAG CONTEXT FILE: an image of the Dockerfile on standard input.
archive() {
  local name=$1 context=$2 file=$3 storage
  storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")
  cat >"$work/Dockerfile"
  buildah "${storage[@]}" bud --quiet --isolation chroot --tag "$name" -f "$work/Dockerfile" "$context" >/dev/null
  rm -f "$file"
  buildah "${storage[@]}" push --quiet "$name" "oci-archive:$file:$name"
}

# Copies a program of the machine, and the libraries that it is linked with.
copy_program() {
  local program=$1 files=$2 library
  install -D "$(realpath "$program")" "$files/$program"
  { ldd "$program" || true; } | grep -o '/[^ ]*' | while read -r library; do
    install -D "$(realpath "$library")" "$files/$library"
  done
}

main() {
  [[ $# -eq 1 ]] || die "usage: ${0##*/} DIR"
  mkdir -p "$1"
  work=$(mktemp -d "${TMPDIR:-/tmp}/outpost-e2e-images.XXXXXX")
  trap 'rm -rf "$work"' EXIT

  mkdir -p "$work/pause" "$work/redis/bin" "$work/redis/tmp"
  musl-gcc -O2 -Wall -Werror -static -s -o "$work/pause/pause" "$here/pause.c"
  archive localhost/e2e-pause:1 "$work/pause" "$1/pause.tar" <<'TXT'
FROM scratch
COPY pause /pause
USER 65532:65532
ENTRYPOINT ["/pause"]
TXT

  copy_program /usr/bin/redis-server "$work/redis"
  copy_program /usr/bin/redis-cli "$work/redis"
  install "$(command -v busybox)" "$work/redis/bin/busybox"
  local applet
  for applet in sh sleep cat date; do ln -s busybox "$work/redis/bin/$applet"; done
  archive localhost/e2e-redis:1 "$work/redis" "$1/redis.tar" <<'TXT'
FROM scratch
COPY . /
USER 65532:65532
TXT
}

main "$@"
