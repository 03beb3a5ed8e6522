#!/usr/bin/env bash
# The old version is scaled to zero, and the new one applied while the migration is pending: its gate holds it.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"
# shellcheck source=outpost.sh
. "$e2e/lib/outpost.sh"

waits() { [[ -n $(gate_state "$1" "$2" .state.running.startedAt) ]] || { gate_state "$1" "$2" '' && return 1; }; }

pods_are() { [[ $(pods_of outpost "$1" | wc -l) == "$2" ]]; }

says_pending() {
  local log
  log=$(kubectl -n outpost logs "$1" -c wait-for-keyspace)
  echo "$log"
  [[ $log == *'pending: 001_hash_tags'* ]]
}

has_failed() {
  gate_state outpost "$1" ''
  [[ $(gate_state outpost "$1" .lastState.terminated.exitCode) == 1 && $(gate_state outpost "$1" .restartCount) -ge 1 ]]
}

outpost outpost outpost 1 redis-cluster "$old_version" </dev/null
kubectl -n outpost rollout status deployment/outpost --timeout=60s >/dev/null
kubectl -n outpost scale deployment/outpost --replicas=0 >/dev/null
until_true 60 'the old version is gone' no_pods outpost outpost
note 'the old version is scaled to zero'

# The sample that README points to, with the Secret that its Outpost reads.
kubectl -n outpost create secret generic outpost \
  --from-file=REDIS_PASSWORD=<(kubectl -n outpost get secret redis-cluster-auth -o 'jsonpath={.data.password}' | base64 -d) >/dev/null
sample_of_outpost redis-cluster
until_true 60 'two pods of the new version' pods_are outpost 2
for pod in $(pods_of outpost outpost); do
  until_true 60 "the gate of $pod runs" waits outpost "$pod"
  until_true 30 "the gate of $pod says what is pending" says_pending "$pod"
  expect "$pod" "$(kubectl -n outpost get pod "$pod" -o 'jsonpath={.status.phase}')" Pending
done

# Without --wait the pod's backoff does the waiting.
gate redis-cluster true | outpost outpost impatient 1 redis-cluster "$new_version"
until_true 60 'a pod of the impatient one' pods_are impatient 1
until_true 60 'the gate without --wait exits 1 and is tried again' has_failed "$(pods_of outpost impatient)"
note 'without --wait: exit code 1, tried again'
expect 'keys of the new version' "$(targets outpost redis-cluster)" 0
