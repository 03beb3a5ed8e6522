#!/usr/bin/env bash
# The upgrade of Outpost as a platform engineer meets it, on a whole one-node Kubernetes: the image, the Helm
# chart, RedisMigrations, and pods held by the gate.
#
# Usage: tests/e2e/run.sh [--keep] [STEP…]
#
#   --keep  leave the node running at the end, or where a step failed, until Ctrl-C
#   STEP    play these only: names in tests/e2e/steps, without number and suffix
#
# The node runs in network, mount, pid, ipc and uts namespaces of its own, and in one temporary folder. Ending its
# first process ends all of it, so nothing is left behind, however the run ends. Needs root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$here/lib/say.sh"

work=''
node=''
cgroup=''
keep=no

parse_arguments() {
  while [[ ${1-} == -* ]]; do
    case $1 in
      --keep) keep=yes ;;
      -h | --help)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) die "$1 is no option; see --help" ;;
    esac
    shift
  done
  steps=("$@")
}

# Prepares what the node runs, outside: inside there is no way to a registry.
build() {
  "$root/tests/install.sh" e2e
  local programs
  programs=$("$root/tests/kubernetes/build.sh" --node):$("$root/tests/programs/build.sh" helm coredns)
  export PATH=$programs:$PATH
  export images=$work/images
  mkdir -p "$images"
  say "images ($SECONDS s so far)"
  "$here/images/build.sh" "$images"
  # As the benchmark is built (Cargo.toml), so that one run of the tests compiles the dependencies once: link-time
  # optimisation changes nothing that is tested here.
  export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
  "$root/deploy/image.sh" --tag localhost/outpost-migrate-redis:current "$images/current.tar" >/dev/null
  # The same program in another image: what an upgrade replaces is pods by pods of another image, and compiling
  # a second program would double the time to get here.
  "$root/deploy/image.sh" --tag localhost/outpost-migrate-redis:next --label-version 0.0.0-next "$images/next.tar" >/dev/null
}

# The groups that bound the pods' resources: the kubelet makes them below ours. The first process of a pod may
# outlive its namespace by a moment.
remove_cgroup() {
  local tries=50
  while find /sys/fs/cgroup -depth -type d -path "*$cgroup*" -exec rmdir {} + 2>/dev/null || true
    [[ -n $(find /sys/fs/cgroup -maxdepth 2 -type d -path "*$cgroup") ]] && ((tries-- > 0)); do sleep 0.1; done
}

make_cgroup() {
  export cgroup=/outpost-e2e-$$
  local controller
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    mkdir "/sys/fs/cgroup$cgroup"
  else
    for controller in /sys/fs/cgroup/*/; do
      [[ ! -e $controller/cgroup.procs ]] || mkdir "${controller%/}$cgroup"
    done
  fi
}

# Asks the first process of the namespaces to end, and does not wait for ever: when it ends, all others do.
end_node() {
  local first tenths=200
  [[ -n $node ]] || return 0
  first=$(pgrep -P "$node") || return 0
  kill -TERM "$first" 2>/dev/null || true
  while kill -0 "$first" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
  kill -KILL "$first" 2>/dev/null || true
  wait "$node" || true
}

# What must not outlive the run.
leftovers() {
  pgrep -f "$work" | sed 's/^/process /'
  grep -F "$work" /proc/self/mountinfo
  find /sys/fs/cgroup -maxdepth 2 -type d -path "*$cgroup"
}

clean_up() {
  local status=$? left
  trap - EXIT
  # A second Ctrl-C must not leave half of it behind.
  trap '' INT TERM
  end_node
  if [[ -n $cgroup ]]; then
    remove_cgroup
    left=$(leftovers || true)
    if [[ -n $left ]]; then
      printf 'e2e: error: left behind:\n%s\n' "$left" >&2
      status=1
    fi
  fi
  [[ -z $work ]] || rm -rf "$work"
  exit "$status"
}

main() {
  steps=()
  parse_arguments "$@"
  [[ $(id -u) -eq 0 ]] || die 'needs root: it makes namespaces, mounts and networks'
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  work=$(mktemp -d "${TMPDIR:-/tmp}/outpost-e2e.XXXXXX")
  export work keep
  build
  make_cgroup
  say "node ($SECONDS s so far)"
  # setpriv: should this script be killed, the namespaces' first process goes, and with it all the others.
  setpriv --pdeathsig KILL unshare --net --mount --pid --ipc --uts --fork --mount-proc --kill-child \
    "$here/inside.sh" "${steps[@]}" &
  node=$!
  wait "$node"
  node=''
  say "done after $SECONDS s"
}

main "$@"
