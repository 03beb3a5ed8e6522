#!/usr/bin/env bash
# The working operator pod is deleted while it copies, then killed; then the kubelet is restarted: the run completes.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

redis_server outpost redis-again
load outpost redis-again 1 300
expect 'legacy keys' "$(census outpost redis-again | count_of legacy)" 1110

holder() { field outpost again .status.lock.holder; }

holder_is_not() {
  local now
  now=$(holder)
  echo "holder: $now"
  [[ -n $now && $now != "$1" ]]
}

# The host's id of the process that a pod runs.
process_of() {
  local container
  container=$(kubectl -n outpost get pod "$1" -o 'jsonpath={.status.containerStatuses[0].containerID}')
  ctr -n k8s.io tasks list | awk -v id="${container#containerd://}" '$1 == id { print $2 }'
}

restarts_of() { kubectl -n outpost get pod "$1" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }

restarted() { (($(restarts_of "$1") > $2)); }

still_copies() { expect 'phase' "$(field outpost again .status.phase)" Applying; }

# Slow enough for three faults to hit, after a plan at full speed; made faster at the end.
migration outpost again redis-again false <<<'targetPhase: Planned'
until_condition outpost again Planned 60
patch outpost again '{"spec":{"targetPhase":"Verified","limits":{"keysPerSecond":40}}}'
until_half_way outpost redis-again 1 1110

first=$(holder)
[[ -n $first ]] || die 'status does not say who works'
kubectl -n outpost delete pod "$first" --wait=false >/dev/null
still_copies
until_true 60 'another replica works' holder_is_not "$first"
note "$first was deleted; $(holder) works"
until_copying outpost redis-again 120
still_copies

second=$(holder)
restarts=$(restarts_of "$second")
kill -KILL "$(process_of "$second")"
until_true 30 'its container is started again' restarted "$second" "$restarts"
# The lock of the dead stands for up to 30 seconds, and whoever takes over plans anew, at the same pace.
until_copying outpost redis-again 120
note "$second was killed; $(holder) works"
still_copies

stop kubelet
start_kubelet
started_up kubelet 60 kubectl wait --for=condition=Ready --timeout=1s "node/$node_name"
until_true 30 'its pods can be entered again' in_redis outpost redis-again-0 PING
until_copying outpost redis-again 120
note 'the kubelet was restarted'
still_copies

kubectl -n outpost patch rmig again --type json -p '[{"op":"remove","path":"/spec/limits"}]' >/dev/null
until_condition outpost again Verified 120
after=$(census outpost redis-again)
expect 'legacy keys without an equal target' "$(without_target <<<"$after")" 0
expect 'targets' "$(count_of current <<<"$after")" 1110
expect 'locks left' "$(in_redis outpost redis-again-0 EXISTS outpost:migration:lock .outpost:migration:lock .outpost:migration_lock)" 0
