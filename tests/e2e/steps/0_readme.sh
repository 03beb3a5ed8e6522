#!/usr/bin/env bash
# What README promises to whoever has a cluster: its commands under "On your cluster", read from it and run word for
# word, end in a verified migration. Afterwards all of it goes, and the steps that follow begin anew.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

# The only thing that is replaced: README's REGISTRY. Having pushed the image there is for the node to have it, under
# the tag that the chart takes when it is told none.
registry=localhost
version=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' "$root/charts/outpost-migrate-redis/Chart.yaml")
ctr -n k8s.io images tag localhost/outpost-migrate-redis:current "$registry/outpost-migrate-redis:$version" >/dev/null

# The first fenced block of the section, one command a line.
commands() {
  awk '/^## / { section = $0 == "## On your cluster" }
    section && /^```/ { if (inside) exit; inside = 1; next }
    inside' "$root/README.md" | sed -e ':more' -e '/\\$/{N;s/\\\n *//;b more' -e '}'
}

# Runs one where README's paths begin.
follow() {
  local command=${1//REGISTRY/$registry}
  printf '  $ %s\n' "$command"
  (cd "$root" && timeout 5m bash -c "$command") || die "README's command fails: $command"
}

mapfile -t commands < <(commands)
expect 'commands in README' "${#commands[@]}" 5

follow "${commands[0]}"
# What its user has, by the names in the sample: a Redis Cluster of an Outpost before v0.6, and its password.
redis_cluster outpost redis-cluster 0
kubectl -n outpost create secret generic outpost-redis \
  --from-file=password=<(kubectl -n outpost get secret redis-cluster-auth -o 'jsonpath={.data.password}' | base64 -d) >/dev/null
load outpost redis-cluster 1 400
before=$(census outpost redis-cluster)
expect 'legacy keys' "$(count_of legacy <<<"$before")" 1480
expect 'current keys' "$(count_of current <<<"$before")" 0
for command in "${commands[@]:1}"; do follow "$command"; done

# Proven without the product.
expect 'Verified of hash-tags' "$(condition outpost hash-tags Verified status)" True
after=$(census outpost redis-cluster)
expect 'current keys' "$(count_of current <<<"$after")" 1480
expect 'legacy keys without an equal target' "$(without_target <<<"$after")" 0
expect 'originals' "$(grep '^legacy' <<<"$after" | sha1sum)" "$(grep '^legacy' <<<"$before" | sha1sum)"
expect 'mark' "$(mark outpost redis-cluster 001_hash_tags status)" applied
[[ -n $(mark outpost redis-cluster 001_hash_tags verified_at) ]] || die 'the mark is not stamped'
kubectl -n outpost get rmig

# The operator goes before its rights do: the last step looks at everything that was refused.
kubectl -n outpost scale deployment/outpost-migrate-redis --replicas=0 >/dev/null
until_true 60 'the operator is gone' no_pods outpost outpost-migrate-redis
helm uninstall outpost-migrate-redis --namespace outpost --wait --timeout 2m >/dev/null
kubectl delete crd redismigrations.migrate.outpost.dev --timeout=60s >/dev/null
kubectl delete namespace outpost --timeout=90s >/dev/null
note 'all of it is gone'
