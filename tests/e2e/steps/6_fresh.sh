#!/usr/bin/env bash
# A fresh Redis Cluster: five pods start at once, and the gate initialises it once.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"
# shellcheck source=outpost.sh
. "$e2e/lib/outpost.sh"

redis_cluster outpost fresh 0
expect 'keys' "$(census outpost fresh | grep -vc whole || true)" 0
gate fresh true --wait 10m | outpost outpost newcomer 5 fresh "$new_version"
kubectl -n outpost rollout status deployment/newcomer --timeout=120s
initialised=0
for pod in $(pods_of outpost newcomer); do
  expect "restarts of the gate of $pod" "$(gate_state outpost "$pod" .restartCount)" 0
  log=$(kubectl -n outpost logs "$pod" -c gate)
  [[ $log != *'Redis was fresh'* ]] || initialised=$((initialised + 1))
done
expect 'gates that initialised it' "$initialised" 1

# One token in every mark: one of them did it, once.
tokens=$(for name in 001_hash_tags 002_timestamps 003_entity; do mark outpost fresh "$name" init_token; done | sort -u)
expect 'init tokens' "$(grep -c . <<<"$tokens")" 1
for name in 001_hash_tags 002_timestamps 003_entity; do
  expect "mark of $name" "$(mark outpost fresh "$name" status)" applied
done
expect 'legacy keys' "$(census outpost fresh | count_of legacy)" 0
kubectl -n outpost delete deployment newcomer >/dev/null
