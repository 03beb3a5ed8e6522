#!/usr/bin/env bash
# A second release in another namespace, whose Redis has the same name: upgraded, rolled back and uninstalled while
# it copies, and its namespace deleted. Data and the first release stay as they are.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

operator_images() {
  kubectl -n outpost-b get pods -l app.kubernetes.io/name=outpost-migrate-redis -o json |
    jq -r '[.items[] | select(.metadata.deletionTimestamp == null and (.metadata.annotations["helm.sh/hook"] == null)) | .spec.containers[0].image] | unique | join(" ")'
}

still_copies() { expect 'phase' "$(field outpost-b copied .status.phase)" Applying; }

make_namespace outpost-b
redis_server outpost-b redis-cluster
load outpost-b redis-cluster 5001 200
before=$(census outpost-b redis-cluster)
before_other=$(census outpost redis-cluster)
expect 'legacy keys' "$(count_of legacy <<<"$before")" 740

# The resource definition is one for the whole cluster: the first release owns it.
release install outpost-b --set crds.install=false >/dev/null

migration outpost-b copied redis-cluster false <<<'targetPhase: Planned'
until_condition outpost-b copied Planned 60
patch outpost-b copied '{"spec":{"targetPhase":"Verified","limits":{"keysPerSecond":40}}}'
until_half_way outpost-b redis-cluster 1 740

ctr -n k8s.io images tag localhost/outpost-migrate-redis:current localhost/outpost-migrate-redis:next >/dev/null
release upgrade outpost-b --set crds.install=false --set image.tag=next >/dev/null
expect 'images after the upgrade' "$(operator_images)" localhost/outpost-migrate-redis:next
still_copies
until_copying outpost-b redis-cluster 90

helm rollback outpost-migrate-redis --namespace outpost-b --wait --timeout 3m >/dev/null
expect 'images after the rollback' "$(operator_images)" localhost/outpost-migrate-redis:current
still_copies
until_copying outpost-b redis-cluster 90

still_copies
helm uninstall outpost-migrate-redis --namespace outpost-b --wait --timeout 2m
after=$(census outpost-b redis-cluster)
targets_between outpost-b redis-cluster 1 740 >/dev/null || die 'it was not under way any more when the release was uninstalled'
expect 'sources' "$(grep '^legacy' <<<"$after" | sha1sum)" "$(grep '^legacy' <<<"$before" | sha1sum)"
expect 'targets that differ from their sources' "$(unequal_targets <<<"$after")" 0
expect 'finalizers' "$(field outpost-b copied .metadata.finalizers)" ''
expect 'mark' "$(mark outpost-b redis-cluster 001_hash_tags status)" ''

kubectl delete namespace outpost-b --timeout=90s >/dev/null
note 'the namespace is gone'
[[ -z $(kubectl get namespaces -o json | jq -r '.items[] | select(.status.phase == "Terminating") | .metadata.name') ]] ||
  die 'a namespace hangs'

# The first release did not notice.
expect 'replicas of the first release' \
  "$(kubectl -n outpost get deployment outpost-migrate-redis -o 'jsonpath={.status.readyReplicas}')" 2
kubectl get crd redismigrations.migrate.outpost.dev >/dev/null
expect 'keyspace of the same name in the other namespace' \
  "$(grep -v ' outpost:migration:' <<<"$before_other" | sha1sum)" \
  "$(census outpost redis-cluster | grep -v ' outpost:migration:' | sha1sum)"
