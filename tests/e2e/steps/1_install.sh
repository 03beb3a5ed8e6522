#!/usr/bin/env bash
# A platform engineer installs the chart as the README says, beside a Redis Cluster with a keyspace of Outpost
# before v0.6.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

make_namespace outpost
redis_cluster outpost redis-cluster 1
load outpost redis-cluster 1 400
expect 'legacy keys' "$(census outpost redis-cluster | count_of legacy)" 1480

release install outpost
kubectl wait --for=condition=Established --timeout=30s crd/redismigrations.migrate.outpost.dev >/dev/null
expect 'replicas of the operator' \
  "$(kubectl -n outpost get deployment outpost-migrate-redis -o 'jsonpath={.status.readyReplicas}')" 2
helm test outpost-migrate-redis --namespace outpost --timeout 2m --logs
