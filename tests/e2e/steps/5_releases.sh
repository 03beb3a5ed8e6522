#!/usr/bin/env bash
# A second release in another namespace, whose Redis has the same name: upgraded, rolled back and uninstalled while
# it copies, and its namespace deleted. Data and the first release stay as they are.
: "${images:?start it with run.sh}"
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

# The pods of this release's operator that are not on their way out, one a line, with what each has of an image:
# operators FILTER
operators() {
  kubectl -n outpost-b get pods -l app.kubernetes.io/name=outpost-migrate-redis -o json |
    jq -r ".items[] | select(.metadata.deletionTimestamp == null and .metadata.annotations[\"helm.sh/hook\"] == null) | $1" |
    sort -u
}

# By which digests the kubelet may know the image of an archive: of its configuration, or of its manifest.
digests() {
  local manifest
  manifest=$(tar -xOf "$images/$1.tar" index.json | jq -er '.manifests[0].digest')
  printf '%s\n' "$manifest"
  tar -xOf "$images/$1.tar" "blobs/sha256/${manifest#sha256:}" | jq -er .config.digest
}

# All pods run the image of the archive NAME, whatever it is called: run_image NAME
run_image() {
  local ids digest
  ids=$(operators '.status.containerStatuses[0].imageID')
  for digest in $(digests "$1"); do
    [[ $ids != *"$digest" || $(wc -l <<<"$ids") -ne 1 ]] || { note "all pods run the image $1: $digest" && return; }
  done
  die "the pods run $ids, not the image $1: $(digests "$1" | paste -sd ' ')"
}

# Who holds the lock in Redis is one of the pods that are there now.
pod_holds() {
  local holder
  holder=$(in_redis outpost-b redis-cluster-0 GET outpost:migration:lock | jq -er .holder) || return
  echo "$holder holds it; there are: $(operators .metadata.name | paste -sd ' ')"
  operators .metadata.name | grep -qxF "$holder"
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
[[ $(digests current) != "$(digests next)" ]] || die 'both images are one'
run_image current
first=$(operators .metadata.name)

release upgrade outpost-b --set crds.install=false --set image.tag=next >/dev/null
run_image next
[[ -z $(comm -12 <(printf '%s\n' "$first") <(operators .metadata.name)) ]] || die 'a pod outlived the upgrade'
still_copies
until_true 90 'a pod of the new image holds the lock' pod_holds
note "a pod of the new image took it over: $(pod_holds)"
until_copying outpost-b redis-cluster 90

helm rollback outpost-migrate-redis --namespace outpost-b --wait --timeout 3m >/dev/null
run_image current
still_copies
until_true 90 'a pod of the earlier image holds the lock' pod_holds
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
