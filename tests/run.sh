#!/usr/bin/env bash
# Installs what is lacking, builds the control plane's programs into .cache, runs every check and test, and ends with a
# table of what took how long.
#
# Usage: tests/run.sh [--only STEP[,STEP…]]
#
#   --only STEP  run these steps alone, in this order: format, lint, clippy, dependencies, documentation, tests, chart,
#                e2e, speed
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

steps=(format lint clippy dependencies documentation tests chart e2e speed)
table=()
servers=''
beside=''

die() {
  printf 'run: error: %s\n' "$*" >&2
  exit 2
}

parse_arguments() {
  local step
  [[ $# -gt 0 ]] || return 0
  [[ $# -eq 2 && $1 == --only ]] || die "usage: tests/run.sh [--only STEP[,STEP…]]; steps: ${steps[*]}"
  local known=" ${steps[*]} "
  local all=("${steps[@]}") chosen
  IFS=, read -ra chosen <<<"$2"
  for step in "${chosen[@]}"; do [[ $known == *" $step "* ]] || die "$step is no step; steps:$known"; done
  steps=()
  for step in "${all[@]}"; do [[ " ${chosen[*]} " != *" $step "* ]] || steps+=("$step"); done
}

# What a step needs is installed by those that need it too, so that each can be run alone.
prepare() {
  tests/install.sh e2e chart redis
  local component
  for component in rustfmt clippy; do
    cargo "${component#rust}" --version >/dev/null 2>&1 || rustup component add "$component"
  done
  PATH=$(tests/tools/install.sh):$PATH
}

step_format() { cargo fmt --check; }

step_lint() { tests/lint.sh; }

step_clippy() { cargo clippy --locked --all-targets -- -D warnings; }

step_dependencies() {
  cargo deny --locked check licenses sources bans
  cargo shear --locked
}

step_documentation() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --lib --quiet; }

# Built first, so that no case waits for a compiler; then one control plane for all cases that share one.
step_tests() {
  tests/kubernetes/build.sh >/dev/null
  cargo nextest run --locked --no-run
  cargo build --locked --example lab
  start_control_plane
  # A snapshot that differs or is missing fails, and nothing is written.
  INSTA_UPDATE=no cargo nextest run --locked
  stop_control_plane
}

start_control_plane() {
  servers=$(mktemp -d "${TMPDIR:-/tmp}/outpost-tests.XXXXXX")
  # It ends when its standard input does: also when this script is killed.
  exec {lab_input}> >(exec "${CARGO_TARGET_DIR:-target}/debug/examples/lab" control-plane --dir "$servers")
  lab=$!
  until [[ -f $servers/env ]]; do
    kill -0 "$lab" 2>/dev/null || die 'the control plane did not start'
    sleep 0.2
  done
  OUTPOST_TEST_CONTROL_PLANE=$(. "$servers/env" && dirname "$KUBECONFIG")
  export OUTPOST_TEST_CONTROL_PLANE
}

stop_control_plane() {
  [[ -n $servers ]] || return 0
  exec {lab_input}>&-
  wait "$lab" || true
  rm -rf "$servers"
  servers=''
}

step_chart() { tests/chart/run.sh; }

step_e2e() { tests/e2e/run.sh; }

step_speed() { tests/bench/run.sh --check; }

# The chart's checks, and then the compiler for the speed check, run beside the end-to-end test, which mostly waits and
# measures nothing. What they print follows when both have ended.
start_beside() {
  beside_output=$(mktemp "${TMPDIR:-/tmp}/outpost-chart.XXXXXX")
  # A process group of its own, to be ended whole.
  set -m
  (
    set +m
    step_chart
    printf '%s\n' "$SECONDS" >"$beside_output.end"
    ! wants speed || tests/bench/run.sh --build
  ) >"$beside_output" 2>&1 </dev/null &
  beside=$!
  set +m
  beside_start=$SECONDS
}

finish_beside() {
  local status=0
  printf '\n== chart (beside e2e)\n'
  table+=('chart failed')
  wait "$beside" || status=$?
  beside=''
  cat "$beside_output"
  [[ ! -e $beside_output.end ]] || table[-1]="chart $(($(cat "$beside_output.end") - beside_start))"
  rm -f "$beside_output" "$beside_output.end"
  return "$status"
}

# Where another step failed meanwhile.
stop_beside() {
  [[ -n $beside ]] || return 0
  kill -- "-$beside" 2>/dev/null || true
  wait "$beside" || true
  cat "$beside_output"
  rm -f "$beside_output" "$beside_output.end"
  beside=''
}

# Whether this run has the step.
wants() { [[ " ${steps[*]} " == *" $1 "* ]]; }

run_all() {
  local step
  run install prepare
  for step in "${steps[@]}"; do
    if [[ $step == chart ]] && wants e2e; then
      start_beside
    else
      run "$step" "step_$step"
    fi
    [[ $step != e2e || -z $beside ]] || finish_beside
  done
}

# Runs a step and notes how long it took.
run() {
  local name=$1 start=$SECONDS
  printf '\n== %s (%s s so far)\n' "$name" "$start"
  table+=("$name failed")
  "$2"
  table[-1]="$name $((SECONDS - start))"
}

summary() {
  local status=$? row
  trap - EXIT
  stop_control_plane
  stop_beside
  printf '\n%-16s %s\n' step seconds
  for row in "${table[@]}"; do printf '%-16s %7s\n' "${row% *}" "${row##* }"; done
  printf '%-16s %7s\n' 'all' "$SECONDS"
  [[ " ${table[*]%% *} " != *' tests '* || ! -e $junit ]] || python3 tests/tools/slowest.py "$junit"
  exit "$status"
}

main() {
  parse_arguments "$@"
  junit=${CARGO_TARGET_DIR:-target}/nextest/default/junit.xml
  rm -f "$junit"
  trap summary EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  run_all
}

main "$@"
