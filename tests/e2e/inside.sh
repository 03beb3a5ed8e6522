#!/usr/bin/env bash
# The first process of the node's namespaces: starts the node, plays the steps, ends the node. Started by run.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# From run.sh: the temporary folder, and whether to stay.
: "${work:?start it with run.sh}" "${keep:?}" "${images:?}" "${cgroup:?}"
. "$here/lib/say.sh"
. "$here/lib/processes.sh"
. "$here/lib/node.sh"
. "$here/lib/control_plane.sh"

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  stop_all
  exit "$status"
}

main() {
  trap finish EXIT
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
  kubectl get nodes -o wide
  if [[ $keep == yes ]]; then
    say "to enter: nsenter --all --target \$(pgrep -f tests/e2e/inside.sh | tail -n 1) env KUBECONFIG=$KUBECONFIG PATH=$PATH bash"
    sleep infinity &
    wait "$!"
  fi
}

main "$@"
