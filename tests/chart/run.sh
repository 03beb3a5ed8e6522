#!/usr/bin/env bash
# Checks the Helm chart, and what deploy/ has beside it: templates, values, schemas, permissions, alerts, dashboard,
# documents. Installs what it needs (Debian packages as root; the rest into .cache).
#
# Usage: tests/chart/run.sh [--update]
#
#   --update  first write what is made from other files: the chart's README and definition, deploy/manifests
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
chart=$root/charts/outpost-migrate-redis
renderings=(default full cluster-wide least)
checkov_version=3.3.30
work=''

. "$here/control_plane.sh"
. "$here/releases.sh"

step() { printf '\n== chart: %s (%s s so far)\n' "$*" "$SECONDS"; }

die() {
  printf 'chart: error: %s\n' "$*" >&2
  exit 1
}

clean_up() {
  stop_control_plane
  [[ -z $work ]] || rm -rf "$work"
}

# A virtual environment of these versions, made once.
python_tools() {
  local folder=$root/.cache/checkov/$checkov_version
  if [[ ! -e $folder/.whole ]]; then
    mkdir -p "$folder"
    (
      flock 9
      [[ ! -e $folder/.whole ]] || exit 0
      echo "installing checkov $checkov_version (a minute, the first time)" >&2
      python3 -m venv "$folder"
      "$folder/bin/pip" install --quiet --disable-pip-version-check "checkov==$checkov_version" pyyaml >&2
      touch "$folder/.whole"
    ) 9>"$folder/.lock" || die 'checkov could not be installed'
  fi
  printf '%s\n' "$folder/bin"
}

prepare() {
  "$root/tests/install.sh" chart
  local kubernetes tools python
  kubernetes=$("$root/tests/kubernetes/build.sh")
  tools=$("$root/tests/programs/build.sh")
  python=$(python_tools)
  PATH=$kubernetes:$tools:$python:$PATH
  programs=$kubernetes
  # Nothing of the user's own Helm.
  export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm HELM_PLUGINS=$work/helm
  unset KUBECONFIG
}

render() {
  local name
  mkdir -p "$work/rendered"
  for name in "${renderings[@]}"; do
    helm template outpost-migrate-redis "$chart" --namespace outpost --values "$here/values/$name.yaml" \
      >"$work/rendered/$name.yaml"
  done
  files=("${renderings[@]/#/$work/rendered/}")
  files=("${files[@]/%/.yaml}")
}

# The documents but for those of the Prometheus Operator, whose definitions our API server does not have.
without_monitoring() {
  python3 -c '
import sys, yaml
documents = [one for one in yaml.safe_load_all(open(sys.argv[1])) if one]
print(yaml.safe_dump_all(one for one in documents if not one["apiVersion"].startswith("monitoring.")))' "$1"
}

# The chart without Helm: what only Helm reads is left out.
plain_manifests() {
  cat <<'END'
# The operator without Helm: charts/outpost-migrate-redis with its default values, rendered for the namespace outpost.
# Made by tests/chart/run.sh --update; do not edit. For another namespace, a Kustomization: `namespace: …` and this file
# among its resources.
#
#   kubectl create namespace outpost
#   kubectl apply --server-side -f deploy/manifests/install.yaml
END
  helm template outpost-migrate-redis "$chart" --namespace outpost --skip-tests --set crds.keep=false |
    sed -e '/^# Source: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^ *helm.sh\/chart: /d' -e '/^$/d'
}

update() {
  cp "$root/crds/redismigrations.yaml" "$chart/files/redismigrations.yaml"
  (cd "$chart" && helm-docs --log-level error --sort-values-order file)
  mkdir -p "$root/deploy/manifests"
  plain_manifests >"$root/deploy/manifests/install.yaml"
}

check_current() {
  local hint='run tests/chart/run.sh --update'
  cmp "$root/crds/redismigrations.yaml" "$chart/files/redismigrations.yaml" || die "the chart's definition is another: $hint"
  (cd "$chart" && helm-docs --log-level error --sort-values-order file --dry-run) >"$work/README.md"
  # A dry run ends with one line break more.
  diff -u <(cat "$chart/README.md") <(sed '${/^$/d}' "$work/README.md") || die "the chart's README is not current: $hint"
  diff -u "$root/deploy/manifests/install.yaml" <(plain_manifests) || die "the plain manifests are not the chart: $hint"
  python3 "$here/consistency.py" "$root" "$work/rendered/default.yaml"
}

check_lint() {
  local name
  for name in "${renderings[@]}"; do helm lint --strict --quiet "$chart" --values "$here/values/$name.yaml"; done
  helm package "$chart" --destination "$work" >/dev/null
  if tar -tzf "$work"/outpost-migrate-redis-*.tgz | grep -E '_test.yaml|gotmpl'; then die 'the package holds what only tests need'; fi
  echo "lint: ${#renderings[@]} files of values; the package builds"
}

check_alerts() {
  mkdir -p "$work/alerts"
  python3 "$here/expressions.py" "$root" "$work/rendered" "$work/alerts"
  promtool check rules --lint=all --lint-fatal "$work/alerts/rules.yaml" "$work/alerts/dashboard.yaml"
  cp "$here/rules_test.yaml" "$work/alerts"
  promtool test rules "$work/alerts/rules_test.yaml"
}

check_types() {
  # With the flags of the build, so that nothing is compiled again.
  (cd "$root/tests/programs" && CGO_ENABLED=0 go vet -trimpath ./chart-types ./coredns)
  chart-types "$work/rendered/full.yaml" "$chart/files/dashboard.json"
}

check_health() {
  lua5.4 "$here/health_test.lua" "$root/deploy/argocd-health.lua"
}

# The API server's own description of what it takes, with our definition.
check_schemas() {
  kubectl apply --server-side -f "$root/crds/redismigrations.yaml" >/dev/null
  # It fails, rather than waits, where there are no conditions yet.
  eventually kubectl wait --for=condition=Established --timeout=30s "crd/$crd" >/dev/null
  eventually openapi_has_ours
  kubectl get --raw /openapi/v2 >"$work/openapi.json"
  python3 "$here/schemas.py" "$work/openapi.json" "$work/schemas"
  # Kinds of the Prometheus Operator are checked by their own types (see ../programs/chart-types).
  kubeconform -strict -summary -skip ServiceMonitor,PrometheusRule \
    -schema-location "$work/schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
    "${files[@]}" "$root/deploy/manifests/install.yaml" "$root/deploy/rbac.yaml" "$root"/deploy/samples/*.yaml
  kubectl delete crd "$crd" >/dev/null
}

openapi_has_ours() { kubectl get --raw /openapi/v2 | grep -q 'dev.outpost.migrate.v1alpha1.RedisMigration"'; }

# Those that are sourced are checked with those that source them.
check_scripts() {
  shellcheck --external-sources --check-sourced --source-path=SCRIPTDIR --exclude=SC1091 "$here"/run.sh
}

main() {
  [[ $# -eq 0 || $* == --update ]] || die "usage: tests/chart/run.sh [--update]"
  work=$(mktemp -d "${TMPDIR:-/tmp}/outpost-chart.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  step 'what is needed'
  prepare
  [[ ${1-} != --update ]] || update
  step 'lint'
  check_lint
  render
  step 'templates'
  (cd "$chart" && helm-unittest --strict .)
  step 'values: each is read, and no other is taken'
  python3 "$here/values.py" "$chart" "$here/values/full.yaml"
  step 'made from other files'
  check_current
  step 'alerts and dashboard'
  check_alerts
  check_types
  step "Argo CD's health"
  check_health
  step 'kube-score and checkov'
  python3 "$here/scores.py" "$here/suppressions.yaml" "${files[@]}"
  step 'an API server'
  start_control_plane "$work/control-plane" "$programs"
  step "the API server's schemas"
  check_schemas
  local name
  for name in outpost team-a team-b; do namespace "$name"; done
  check_server_takes "${files[@]}"
  check_pod_security "${files[@]}"
  step 'releases'
  check_releases
  echo "releases: $releases_passed passed, 0 failed"
  step 'scripts'
  check_scripts
  step 'done'
}

main "$@"
