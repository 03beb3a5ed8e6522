# shellcheck shell=bash
# How the scripts of the end-to-end test speak, wait and give up. To be sourced.

say() { printf 'e2e: %s\n' "$*"; }

die() {
  printf 'e2e: error: %s\n' "$*" >&2
  exit 1
}

# Waits until the command succeeds: until SECONDS WHAT COMMAND…; what it prints is shown when time is up.
until_true() {
  local limit=$1 what=$2 start=$SECONDS output
  shift 2
  while ! output=$("$@" 2>&1); do
    if ((SECONDS - start >= limit)); then
      printf '%s\n' "$output" >&2
      die "not within $limit s: $what"
    fi
    sleep 0.2
  done
}
