#!/usr/bin/env bash
# A user with the built-in role `edit` in one namespace works with migrations there, and gets at no Secret of another.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

engineer() { kubectl --kubeconfig "$work/engineer.kubeconfig" "$@"; }

# may VERB RESOURCE NAMESPACE yes|no
may() { expect "engineer may $1 $2 in $3" "$(engineer auth can-i "$1" "$2" -n "$3" 2>/dev/null || true)" "$4"; }

make_namespace outpost-theirs
redis_server outpost redis-engineer
redis_server outpost-theirs theirs
load outpost redis-engineer 1 20
kubectl -n outpost create rolebinding engineer --clusterrole=edit --user=engineer >/dev/null

until_true 30 'the role edit is aggregated' engineer auth can-i create redismigrations.migrate.outpost.dev -n outpost
for verb in get list watch create update patch delete; do may "$verb" redismigrations.migrate.outpost.dev outpost yes; done
may create redismigrations.migrate.outpost.dev outpost-theirs no
may get secrets outpost-theirs no

migrate() { # NAME HOST SECRET [MORE]
  cat <<TXT
apiVersion: migrate.outpost.dev/v1alpha1
kind: RedisMigration
metadata: { name: $1, namespace: outpost }
spec:
  migration: 001_hash_tags
  redis: { host: $2, passwordSecretRef: { name: $3, key: password${4-} } }
  suspend: ${5-false}
TXT
}

# watched TYPE FILTER: the watch brought an event of this type whose object fits
watched() {
  cat "$work/logs/engineer-watch.log"
  jq -es --arg type "$1" "any(.[]; .type == \$type and (.object | $2))" "$work/logs/engineer-watch.log"
}
verified='any(.status.conditions[]?; .type == "Verified" and .status == "True")'

# Nothing happens before the watch has begun: it brings what is there as added, and what comes as modified.
migrate engineered redis-engineer redis-engineer-auth '' true | engineer apply -f - >/dev/null
start engineer-watch kubectl --kubeconfig "$work/engineer.kubeconfig" -n outpost get rmig engineered \
  --watch --output-watch-events -o json
until_true 30 'the watch of engineer begins' watched ADDED "$verified | not"
engineer -n outpost patch rmig engineered --type merge -p '{"spec":{"suspend":false}}' >/dev/null
until_true 90 'engineer sees the change of status in the watch' watched MODIFIED "$verified"
alive engineer-watch || die 'the watch of engineer ended by itself'
stop engineer-watch
note 'engineer watched it become Verified'

# There is no way to name a Secret of another namespace …
if refused=$(migrate crossing theirs.outpost-theirs.svc theirs-auth ', namespace: outpost-theirs' | engineer apply -f - 2>&1); then
  die 'a Secret of another namespace could be named'
fi
expect_text 'naming a namespace' "$refused" 'unknown field'
# … and its name alone means the resource's own namespace.
migrate crossing theirs.outpost-theirs.svc theirs-auth | engineer apply -f - >/dev/null
until_reason outpost crossing SecretMissing 60
engineer -n outpost delete rmig engineered crossing >/dev/null

# Nor can the operator, as this release was installed.
for namespace in outpost-theirs kube-system; do
  expect "operator may get secrets in $namespace" \
    "$(kubectl auth can-i get secrets -n "$namespace" --as=system:serviceaccount:outpost:outpost-migrate-redis 2>/dev/null || true)" no
done
