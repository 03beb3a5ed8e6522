#!/usr/bin/env bash
# From a dry run over the approval of the plan to cleanup; the pods that the gate held start by themselves.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"
# shellcheck source=outpost.sh
. "$e2e/lib/outpost.sh"

legacy=$(census outpost redis-cluster | count_of legacy)

# The dry run.
migration outpost hash-tags redis-cluster true <<<'targetPhase: Planned'
until_condition outpost hash-tags Planned 60
expect 'keys that the plan counts' "$(field outpost hash-tags .status.plan.totals.sources)" "$legacy"
expect 'targets after the dry run' "$(targets outpost redis-cluster)" 0

# Nothing goes on without the approval of this plan.
patch outpost hash-tags '{"spec":{"targetPhase":"Verified","approval":{"mode":"Manual"}}}'
until_reason outpost hash-tags AwaitingApproval 30
expect 'targets before the approval' "$(targets outpost redis-cluster)" 0
hash=$(field outpost hash-tags .status.plan.hash)
patch outpost hash-tags "{\"spec\":{\"approval\":{\"planHash\":\"$hash\"}}}"
until_condition outpost hash-tags Verified 120

# Proven without the product.
after=$(census outpost redis-cluster)
expect 'legacy keys without an equal target' "$(without_target <<<"$after")" 0
expect 'legacy keys that are left' "$(count_of legacy <<<"$after")" "$legacy"
expect 'mark' "$(mark outpost redis-cluster 001_hash_tags status)" applied
[[ -n $(mark outpost redis-cluster 001_hash_tags verified_at) ]] || die 'the mark is not stamped'

# The new version needs the next two migrations as well: the gate goes on holding it.
gate_says() {
  local log
  log=$(kubectl -n outpost logs deployment/outpost -c wait-for-keyspace)
  echo "$log"
  [[ $(grep -F pending: <<<"$log" | tail -n 1) == *"$1"* ]]
}
until_true 60 'the gate waits for the next one' gate_says 'pending: 002_timestamps'
note 'the gate waits for 002_timestamps'
migration outpost entity redis-cluster true 003_entity </dev/null
until_reason outpost entity PredecessorPending 60
migration outpost timestamps redis-cluster true 002_timestamps </dev/null
until_condition outpost timestamps Verified 60
until_condition outpost entity Verified 120
created=$(in_redis outpost redis-cluster-0 -c HGET 'tenant:{e2e-2}:tenant' created_at)
expect 'created_at of a tenant' "$created" "$(date -u -d 2025-06-07T08:09:10Z +%s)000"
expect 'entity of a tenant' "$(in_redis outpost redis-cluster-0 -c HGET 'tenant:{e2e-2}:tenant' entity)" tenant

kubectl -n outpost rollout status deployment/outpost --timeout=120s
note 'the pods that the gate held run'
# Its backoff may be at half a minute by now.
kubectl -n outpost rollout status deployment/impatient --timeout=120s >/dev/null
kubectl -n outpost delete deployment impatient >/dev/null

# Cleanup a day later, unless told otherwise, and by an approval of its own.
patch outpost hash-tags '{"spec":{"targetPhase":"CleanedUp"}}'
until_reason outpost hash-tags Soaking 30
expect 'legacy keys while it soaks' "$(census outpost redis-cluster | count_of legacy)" "$legacy"
patch outpost hash-tags '{"spec":{"cleanup":{"after":"0s"}}}'
until_reason outpost hash-tags AwaitingApproval 60
hash=$(field outpost hash-tags .status.cleanup.hash)
patch outpost hash-tags "{\"spec\":{\"approval\":{\"cleanupHash\":\"$hash\"}}}"
until_condition outpost hash-tags CleanedUp 120
until_condition outpost hash-tags Ready 30

# The new version writes to one of the tenants all the time: this original differs from its target, and stays.
after=$(census outpost redis-cluster)
expect 'legacy keys after cleanup' "$(count_of legacy <<<"$after")" 1
expect 'why' "$(condition outpost hash-tags CleanedUp reason)" KeptOriginals
expect_text 'the one' "$(grep '^legacy' <<<"$after")" 'tenant:{e2e-1}:tenant'
kubectl -n outpost get rmig
kubectl -n outpost get events --field-selector involvedObject.name=hash-tags -o custom-columns=TYPE:.type,REASON:.reason,NOTE:.message
kubectl -n outpost delete deployment outpost >/dev/null
