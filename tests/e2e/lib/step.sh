# shellcheck shell=bash
# What the steps share: where things are, the release, resources and expectations. To be sourced by a step, which
# run.sh starts on the node.
set -euo pipefail

e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=$(cd "$e2e/../.." && pwd)
: "${work:?start it with run.sh}"
# shellcheck source=say.sh
. "$e2e/lib/say.sh"
# shellcheck source=secret.sh
. "$e2e/lib/secret.sh"
# shellcheck source=processes.sh
. "$e2e/lib/processes.sh"
# shellcheck source=node.sh
. "$e2e/lib/node.sh"
# shellcheck source=redis.sh
. "$e2e/lib/redis.sh"

# Another chart only while one works on the scripts.
chart=${E2E_CHART:-$root/charts/outpost-migrate-redis}

note() { printf '  %s\n' "$*"; }

# expect WHAT ACTUAL EXPECTED
expect() {
  [[ $2 == "$3" ]] || die "$1: expected $3, found $2"
  note "$1: $2"
}

# expect_text WHAT TEXT PART
expect_text() {
  [[ $2 == *"$3"* ]] || die "$1: expected to find '$3' in: $2"
  note "$1: says '$3'"
}

# A namespace that takes only pods of the strictest standard.
make_namespace() {
  kubectl create namespace "$1" >/dev/null
  kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

# Installs or upgrades a release with the image of this commit: release VERB NAMESPACE [ARGUMENT…]
release() {
  local verb=$1 namespace=$2
  shift 2
  helm "$verb" outpost-migrate-redis "$chart" --namespace "$namespace" --wait --timeout 3m \
    --set image.repository=localhost/outpost-migrate-redis --set image.tag=current --set image.pullPolicy=Never "$@"
}

# A field of a RedisMigration: field NAMESPACE NAME JSONPATH
field() { kubectl -n "$1" get rmig "$2" -o "jsonpath={$3}"; }

# The status or reason of a condition: condition NAMESPACE NAME TYPE status|reason|message
condition() { field "$1" "$2" ".status.conditions[?(@.type==\"$3\")].$4"; }

field_is() { [[ $(field "$1" "$2" "$3") == "$4" ]] || { field "$1" "$2" .status && return 1; }; }
condition_is() { [[ $(condition "$1" "$2" "$3" "$4") == "$5" ]] || { field "$1" "$2" .status && return 1; }; }

# until_condition NAMESPACE NAME TYPE SECONDS
until_condition() {
  kubectl -n "$1" wait --for="condition=$3" --timeout="${4}s" "rmig/$2" >/dev/null || {
    field "$1" "$2" .status >&2
    die "$2 in $1 is not $3 within $4 s"
  }
  note "$2: $3"
}

# until_reason NAMESPACE NAME REASON SECONDS: of the condition Ready
until_reason() {
  until_true "$4" "$2 in $1 says $3" condition_is "$1" "$2" Ready reason "$3"
  note "$2: $3, $(condition "$1" "$2" Ready message)"
}

patch() { kubectl -n "$1" patch rmig "$2" --type merge -p "$3" >/dev/null; }

# A RedisMigration of Redis REDIS with its Secret REDIS-auth; further lines of spec on standard input:
# migration NAMESPACE NAME REDIS CLUSTER [MIGRATION]
migration() {
  {
    cat <<TXT
apiVersion: migrate.outpost.dev/v1alpha1
kind: RedisMigration
metadata: { name: $2, namespace: $1 }
spec:
  migration: ${5-001_hash_tags}
  redis: { host: $3, cluster: $4, passwordSecretRef: { name: $3-auth, key: password } }
TXT
    sed 's/^/  /'
  } | kubectl apply -f - >/dev/null
}

# The pods of a Deployment that matter: not those on their way out.
pods_of() {
  kubectl -n "$1" get pods -l "app.kubernetes.io/name=$2" -o json |
    jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'
}

no_pods() { [[ -z $(kubectl -n "$1" get pods -l "app.kubernetes.io/name=$2" -o name) ]]; }

# How many targets there are: targets NAMESPACE REDIS
targets() { census "$1" "$2" | count_of current; }

# Waits until a copy is under way: some targets there, and some not. This is what makes a fault one that hits:
# until_half_way NAMESPACE REDIS LEAST MOST
until_half_way() {
  local namespace=$1 redis=$2 least=$3 most=$4
  until_true 60 "between $least and $most targets in $redis of $namespace" \
    targets_between "$namespace" "$redis" "$least" "$most"
  note "under way: $(targets "$namespace" "$redis") of $most targets"
}

targets_between() {
  local found
  found=$(targets "$1" "$2")
  echo "$found targets"
  [[ $found != unknown ]] && ((found >= $3 && found < $4))
}

# Waits until there are more targets than now: somebody copies. until_copying NAMESPACE REDIS SECONDS
until_copying() {
  local now
  now=$(targets "$1" "$2")
  [[ $now != unknown ]] || die "$2 in $1 can't be read"
  until_true "$3" "more than $now targets in $2 of $1" targets_between "$1" "$2" $((now + 1)) 1000000000
}
