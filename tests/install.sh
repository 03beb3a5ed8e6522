#!/usr/bin/env bash
# Installs what the tests and the demo need and this machine lacks: Debian packages by apt-get. Says what it
# installs; installs nothing that is there already.
#
# Usage: tests/install.sh [e2e] [chart] [redis]
#
#   e2e    also what the end-to-end test's node and the image take
#   chart  also what the checks of the Helm chart take
#   redis  also further versions of Redis, into .cache/redis
set -euo pipefail

# Program and the Debian package that brings it.
programs=(redis-server:redis-server redis-cli:redis-tools etcd:etcd-server openssl:openssl setpriv:util-linux curl:curl cc:gcc)
e2e_programs=(
  containerd:containerd runc:runc /usr/lib/cni/ptp:containernetworking-plugins nft:nftables conntrack:conntrack
  ip:iproute2 buildah:buildah musl-gcc:musl-tools busybox:busybox-static jq:jq shellcheck:shellcheck
  pgrep:procps python3:python3-venv /etc/ssl/certs/ca-certificates.crt:ca-certificates
)
redis_programs=(python3:python3-venv curl:curl dpkg-deb:dpkg)
chart_programs=(promtool:prometheus lua5.4:lua5.4 shellcheck:shellcheck)

say() { printf 'install: %s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

present() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing_packages() {
  local entry
  for entry in "${programs[@]}"; do
    present "${entry%%:*}" || printf '%s\n' "${entry#*:}"
  done
  # A compiler without the C library's headers links nothing.
  [ -e /usr/include/stdlib.h ] || echo libc6-dev
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages)
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "needed: ${packages[*]}; this script can install them on Debian only"
  say "Debian packages: ${packages[*]}"
  [ "$(id -u)" = 0 ] || die "needs root: sudo apt-get install ${packages[*]}"
  # Packages that start a service of their own must not: the tests start what they need.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

command -v cargo >/dev/null || die 'Rust is needed: see https://rustup.rs'
command -v go >/dev/null || die 'Go is needed, to build kube-apiserver: see https://go.dev/doc/install'
for part in "$@"; do
  case $part in
    e2e) programs+=("${e2e_programs[@]}") ;;
    chart) programs+=("${chart_programs[@]}") ;;
    redis) programs+=("${redis_programs[@]}") ;;
    *) die "usage: tests/install.sh [e2e] [chart] [redis]" ;;
  esac
done
install_packages
case " $* " in
  *' redis '*) "$(dirname "${BASH_SOURCE[0]}")/redis/install.sh" ;;
esac
