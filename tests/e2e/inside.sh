#!/usr/bin/env bash
# The first process of the node's namespaces: starts the node and plays the steps. Started by run.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# From run.sh: the temporary folder, and whether to stay.
: "${work:?start it with run.sh}" "${keep:?}" "${images:?}" "${cgroup:?}"
. "$here/lib/say.sh"
. "$here/lib/secret.sh"
. "$here/lib/processes.sh"
. "$here/lib/node.sh"
. "$here/lib/control_plane.sh"
. "$here/lib/diagnosis.sh"

# Plays the steps named, or all, in their order; the first that fails ends it.
play() {
  local step name
  for step in "$here"/steps/*.sh; do
    name=$(basename "$step" .sh)
    [[ $# -eq 0 || " $* " == *" ${name#*_} "* ]] || continue
    say "$name ($SECONDS s)"
    if ! bash "$step"; then
      diagnose
      say "$name failed; what there is to see is above"
      return 1
    fi
  done
}

main() {
  local status=0
  # Nothing to end one by one: as the first process of its pid namespace, this one takes all others with it.
  trap 'exit 130' INT
  trap 'exit 143' TERM
  hostname "$node_name"
  export KUBECONFIG=$work/admin.kubeconfig
  prepare_folders
  prepare_network
  start_control_plane
  say "control plane is ready ($SECONDS s)"
  start_node
  say "node is ready ($SECONDS s)"
  play "$@" || status=$?
  if [[ $keep == yes ]]; then
    say "to enter: nsenter --all --target \$(pgrep -f '^bash .*/inside.sh') env KUBECONFIG=$KUBECONFIG PATH=$PATH bash"
    sleep infinity &
    wait "$!"
  fi
  return "$status"
}

main "$@"
