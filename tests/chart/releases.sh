# shellcheck shell=bash
# Installs, upgrades, rolls back and removes releases on a real API server, whose namespaces enforce pod security
# `restricted`. No pod runs here: tests/e2e does that. To be sourced by run.sh, which starts the server.

crd=redismigrations.migrate.outpost.dev
releases_passed=0

ok() {
  releases_passed=$((releases_passed + 1))
  printf '  ok: %s\n' "$*"
}

not_ok() {
  printf '  FAILED: %s\n' "$*" >&2
  exit 1
}

# expect NAME COMMAND…: the command succeeds.
expect() {
  local name=$1 output
  shift
  output=$("$@" 2>&1) || not_ok "$name: $output"
  ok "$name"
}

# refuse NAME WORDS COMMAND…: the command fails, and says so in these words.
refuse() {
  local name=$1 words=$2 output
  shift 2
  if output=$("$@" 2>&1); then not_ok "$name: is not refused"; fi
  [[ $output == *"$words"* ]] || not_ok "$name: refused, but by: $output"
  ok "refused: $name"
}

# same NAME EXPECTED ACTUAL
same() { if [[ $2 == "$3" ]]; then ok "$1"; else not_ok "$1: expected '$2', got '$3'"; fi; }

install() { helm install --namespace "$1" "$2" "$chart" "${@:3}"; }

namespace() {
  kubectl create namespace "$1" >/dev/null
  kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted \
    >/dev/null
  # A controller makes it; pods are refused before.
  eventually kubectl -n "$1" get serviceaccount default
}

can() { kubectl auth can-i --quiet --as="$1" "${@:2}"; }

sample() { kubectl apply -f "$root/deploy/samples/redismigration.yaml"; }

# Every rendering is taken by the API server, without a warning: of pod security, an unknown field, an old version.
check_server_takes() {
  local rendering output
  for rendering in "$@"; do
    # The Prometheus Operator's kinds are not there; types/ checks them.
    output=$(without_monitoring "$rendering" |
      kubectl apply --dry-run=server --validate=strict --warnings-as-errors -f - 2>&1) ||
      not_ok "the API server takes $(basename "$rendering"): $output"
    ok "the API server takes $(basename "$rendering")"
  done
}

# A Deployment's pods are refused later, where nobody sees it: as a pod of its own, the template is refused at once.
check_pod_security() {
  local rendering
  for rendering in "$@"; do
    expect "pods of $(basename "$rendering") are restricted" pods_are_taken "$rendering"
  done
}

pods_are_taken() { python3 "$here/pods.py" "$1" | kubectl -n outpost create --dry-run=server -f -; }

check_releases() {
  local account=system:serviceaccount:outpost:first-outpost-migrate-redis version
  expect 'a first release' install outpost first
  expect 'the definition is established' eventually kubectl wait --for=condition=Established --timeout=30s "crd/$crd"
  expect 'a RedisMigration is taken' sample
  expect 'its ServiceAccount updates status' can "$account" -n outpost update redismigrations.migrate.outpost.dev --subresource=status
  expect 'its ServiceAccount gets Secrets' can "$account" -n outpost get secrets
  refuse 'it does not list Secrets' '' can "$account" -n outpost list secrets
  refuse 'it gets none of another namespace' '' can "$account" -n team-a get secrets
  refuse 'it changes no RedisMigration' '' can "$account" -n outpost update redismigrations.migrate.outpost.dev

  refuse 'a second release with the definition' 'cannot be imported' install team-a second
  expect 'a second release without the definition' install team-a second --set crds.install=false
  expect 'a release of the same name in another namespace' install team-b first --set crds.install=false
  expect 'a second release goes' helm uninstall --namespace team-a second --wait
  expect 'the first release has its definition' kubectl get crd "$crd"

  kubectl create rolebinding editor --clusterrole=edit --user=editor -n outpost >/dev/null
  kubectl create rolebinding viewer --clusterrole=view --user=viewer -n outpost >/dev/null
  # The aggregation is a controller's work.
  expect 'edit may create RedisMigrations' eventually can editor -n outpost create redismigrations.migrate.outpost.dev
  refuse 'edit may not write their status' '' can editor -n outpost update redismigrations.migrate.outpost.dev --subresource=status
  refuse 'edit may create none elsewhere' '' can editor -n team-a create redismigrations.migrate.outpost.dev
  expect 'view may read RedisMigrations' eventually can viewer -n outpost watch redismigrations.migrate.outpost.dev
  refuse 'view may not change them' '' can viewer -n outpost patch redismigrations.migrate.outpost.dev

  expect 'an upgrade to a list of namespaces' helm upgrade --namespace outpost first "$chart" \
    --set 'watchNamespaces={outpost,team-a}'
  expect 'then it gets Secrets there' can "$account" -n team-a get secrets
  expect 'an upgrade to all namespaces' helm upgrade --namespace outpost first "$chart" --set 'watchNamespaces={*}'
  expect 'then it gets Secrets everywhere' can "$account" -n kube-system get secrets
  expect 'a rollback to the first revision' helm rollback --namespace outpost first 1
  refuse 'then it gets Secrets there no more' '' can "$account" -n team-a get secrets

  # An old definition: one that lacks what this one has.
  expect 'a release whose definition is older' install_old
  same 'the older definition lacks the field' '' "$(has_field)"
  expect 'upgraded, the definition is new' helm upgrade --namespace outpost first "$chart"
  same 'the new definition has the field' integer "$(has_field)"
  expect 'a RedisMigration with the field' kubectl -n outpost patch rmig/hash-tags --type=merge -p '{"spec":{"minReplicas":1}}'
  version=$(helm history --namespace outpost first -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)[-2]["revision"])')
  expect 'rolled back, the older definition is there' helm rollback --namespace outpost first "$version"
  same 'and lacks the field again' '' "$(has_field)"
  expect 'RedisMigrations outlast it' kubectl -n outpost get rmig/hash-tags
  expect 'and upgraded again' helm upgrade --namespace outpost first "$chart"

  expect 'the release goes' helm uninstall --namespace outpost first --wait
  expect 'the definition and RedisMigrations stay' kubectl -n outpost get rmig/hash-tags
  expect 'nothing else stays' nothing_left
  refuse 'a release of another name does not adopt it unasked' 'cannot be imported' install outpost adopter
  expect 'it adopts it if asked' install outpost adopter --take-ownership
  same 'and owns it' adopter "$(kubectl get crd "$crd" -o jsonpath='{.metadata.annotations.meta\.helm\.sh/release-name}')"
  expect 'adopted, RedisMigrations are there' kubectl -n outpost get rmig/hash-tags
  expect 'crds.install=false keeps it' helm upgrade --namespace outpost adopter "$chart" --set crds.install=false
  expect 'RedisMigrations are still there' kubectl -n outpost get rmig/hash-tags
  expect 'it goes' helm uninstall --namespace outpost adopter --wait
  expect 'applied by kubectl before' kubectl apply --server-side --force-conflicts -f "$root/crds/redismigrations.yaml"
  expect 'adopted by label and annotations' adopt_by_hand byhand
  expect 'then installed without a flag' install outpost byhand --set crds.keep=false
  expect 'and without keep, uninstalled' helm uninstall --namespace outpost byhand --wait
  expect 'the definition is gone' kubectl wait --for=delete --timeout=30s "crd/$crd"
  expect 'the plain manifests install' kubectl apply --server-side -f "$root/deploy/manifests/install.yaml"
  expect 'and a RedisMigration after them' eventually sample
}

adopt_by_hand() {
  kubectl label --overwrite crd "$crd" app.kubernetes.io/managed-by=Helm &&
    kubectl annotate --overwrite crd "$crd" meta.helm.sh/release-name="$1" meta.helm.sh/release-namespace=outpost
}

# The chart with a definition that has no spec.minReplicas, as a version before it would.
install_old() {
  local old=$work/old-chart
  cp -r "$chart" "$old"
  python3 - "$old/files/redismigrations.yaml" <<'END' || return
import sys, yaml
with open(sys.argv[1]) as file:
    crd = yaml.safe_load(file)
del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["minReplicas"]
with open(sys.argv[1], "w") as file:
    yaml.safe_dump(crd, file)
END
  helm upgrade --namespace outpost first "$old"
}

has_field() {
  kubectl get crd "$crd" \
    -o jsonpath='{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.minReplicas.type}'
}

nothing_left() {
  local left
  left=$(kubectl get -n outpost deploy,svc,sa,role,rolebinding,pdb,clusterrole,clusterrolebinding \
    -l app.kubernetes.io/instance=first -o name)
  # The release of the same name in another namespace has its own.
  left=$(grep -v -- '-team-b-' <<<"$left" || true)
  [[ -z $left ]] || {
    echo "$left"
    return 1
  }
}

eventually() {
  local tries=100
  until "$@" >/dev/null 2>&1; do
    ((tries-- > 0)) || {
      "$@"
      return
    }
    sleep 0.2
  done
}
