#!/usr/bin/env bash
# Shows a RedisMigration from plan to cleanup, on a real API server, against a real Redis Cluster.
#
# Usage: deploy/demo.sh [--keep] [--kubeconfig FILE]
#
#   --keep             leave everything running at the end, until Ctrl-C
#   --kubeconfig FILE  use the cluster of this kubeconfig instead of starting a control plane
#
# On a fresh Debian machine with Rust and Go it installs redis-server and etcd-server by apt-get; the
# first run also builds kube-apiserver, which takes minutes. Everything runs on 127.0.0.1, in a
# temporary folder, and is gone at the end.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/debug
namespace=outpost
tenants=5000
keep=no
kubeconfig=''
made_namespace=no
dir=''
pids=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

die() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --keep) keep=yes ;;
      --kubeconfig)
        [ $# -gt 1 ] || die '--kubeconfig needs a file'
        [ -r "$2" ] || die "$2 can't be read"
        kubeconfig=$(readlink -f "$2")
        shift
        ;;
      -h | --help)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) die "$1 is no option; see --help" ;;
    esac
    shift
  done
}

end_everything() {
  local status=$?
  trap - EXIT
  # A second Ctrl-C must not leave half of it behind.
  trap '' INT TERM
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || :; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || :; done
  if [ "$made_namespace" = yes ] && [ "$keep" = no ]; then
    kubectl --kubeconfig "$kubeconfig" delete namespace "$namespace" --wait=false || :
  fi
  if [ "$status" -ne 0 ] && [ -n "$dir" ]; then
    printf '\ndemo: failed; the logs are in %s\n' "$dir" >&2
  elif [ -n "$dir" ]; then
    rm -rf "$dir"
  fi
  exit "$status"
}

build() {
  say 'Building the operator and the lab (the first time takes a few minutes)'
  (cd "$root" && cargo build --locked --bin outpost-migrate-redis --example lab)
  if [ -z "$kubeconfig" ] || ! command -v kubectl >/dev/null; then
    say 'Control plane: kube-apiserver, etcd, kubectl'
    PATH="$("$root/tests/kubernetes/build.sh"):$PATH"
  fi
}

lab() { "$built/examples/lab" "$@"; }

start_servers() {
  say 'Starting a Redis Cluster (3 primaries, 3 replicas) and a control plane'
  local what=up
  local load=(--tenants "$tenants" --seed 1)
  if [ -n "$kubeconfig" ]; then what=redis-cluster load=(); fi
  # The program itself, not the function: the signal at the end must reach it.
  "$built/examples/lab" "$what" --dir "$dir" "${load[@]}" </dev/null &
  pids+=($!)
  until [ -f "$dir/env" ]; do
    kill -0 "${pids[-1]}" 2>/dev/null || die 'the servers did not start'
    sleep 0.2
  done
  . "$dir/env"
  if [ -n "$kubeconfig" ]; then
    export KUBECONFIG=$kubeconfig
    namespace=outpost-demo
    lab load --tenants "$tenants" --seed 1 --redis "$REDIS_HOST:$REDIS_PORT" --cluster
  fi
}

install_operator() {
  say 'Installing the resource definition and what the operator may do'
  kubectl create namespace "$namespace" ||
    die "the namespace $namespace is in the way; delete it, or wait until it is gone"
  if [ -n "$kubeconfig" ]; then made_namespace=yes; fi
  kubectl -n "$namespace" create secret generic outpost-redis --from-file=password="$dir/password" \
    --dry-run=client -o yaml | kubectl apply -f -
  kubectl apply -f "$root/crds/redismigrations.yaml"
  kubectl apply -n "$namespace" -f "$root/deploy/rbac.yaml"
  # It fails, rather than waits, where there are no conditions yet.
  local tries=20
  until kubectl wait --for=condition=Established --timeout=30s crd/redismigrations.migrate.outpost.dev 2>/dev/null; do
    ((tries-- > 0)) || die 'the resource definition is not established'
    sleep 0.5
  done
}

# A kubeconfig with nothing but the operator's own rights.
operator_kubeconfig() {
  local file=$dir/operator.kubeconfig
  kubectl config view --raw --minify --flatten >"$file"
  chmod 600 "$file"
  kubectl --kubeconfig "$file" config set-credentials operator \
    --token="$(kubectl -n "$namespace" create token outpost-migrate-redis --duration 1h)" >/dev/null
  kubectl --kubeconfig "$file" config set-context --current --user=operator >/dev/null
  printf '%s\n' "$file"
}

start_operators() {
  say 'Starting two operator replicas'
  local config replica
  config=$(operator_kubeconfig)
  for replica in 1 2; do
    KUBECONFIG=$config "$built/outpost-migrate-redis" operator --namespace "$namespace" \
      --holder "replica-$replica" --address "127.0.0.1:$(free_port)" >"$dir/replica-$replica.log" 2>&1 &
    pids+=($!)
  done
}

free_port() {
  local port
  for port in $(shuf -i 20000-30000 -n 50); do
    if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
  die 'no free port'
}

# The sample, with this Redis' address and at a pace at which one can watch.
apply_sample() {
  say "Applying deploy/samples/redismigration.yaml (here: $REDIS_HOST:$REDIS_PORT, at most 5,000 keys a second to watch it)"
  sed -e "s/^  namespace: .*/  namespace: $namespace/" -e "s/host: redis-cluster .*/host: $REDIS_HOST/" \
    -e "s/port: 6379/port: $REDIS_PORT/" -e 's/^spec:/spec:\n  limits: { keysPerSecond: 5000 }/' \
    "$root/deploy/samples/redismigration.yaml" | kubectl apply -f -
}

# Prints what `kubectl get rmig` prints whenever it changes, until the condition holds; the header again
# when the columns move.
watch_until() {
  local condition=$1 deadline=$((SECONDS + 180)) header='' before=''
  while [ $SECONDS -lt $deadline ]; do
    local reached=no lines
    if kubectl -n "$namespace" wait --for="condition=$condition" --timeout=0s rmig/hash-tags >/dev/null 2>&1; then
      reached=yes
    fi
    mapfile -t lines < <(kubectl -n "$namespace" get rmig hash-tags)
    [ ${#lines[@]} -eq 2 ] || continue
    if [ "${lines[1]% *}" != "${before% *}" ]; then
      if [ "${lines[0]}" != "$header" ]; then printf '%s\n' "${lines[0]}"; fi
      printf '%s\n' "${lines[1]}"
    fi
    header=${lines[0]} before=${lines[1]}
    if [ "$reached" = yes ]; then return; fi
    sleep 0.5
  done
  kubectl -n "$namespace" describe rmig hash-tags >&2
  die "not $condition within 3 minutes"
}

show_keyspace() {
  say "$1"
  lab snapshot --redis "$REDIS_HOST:$REDIS_PORT" --cluster 2>/dev/null
}

show_end() {
  say 'What happened: kubectl describe rmig hash-tags (the events)'
  kubectl -n "$namespace" describe rmig hash-tags | sed -n '/^Events:/,$p'
  say 'Metrics of both replicas (/metrics)'
  local address
  for address in $(sed -n 's/.*address=\([0-9.:]*\).*/\1/p' "$dir"/replica-*.log); do
    curl -fsS "http://$address/metrics" | grep -E '^outpost_migrate_(entries|failures|lock|plan)' || :
  done
  say 'To look further (while it runs: --keep)'
  cat <<TXT
  kubectl explain rmig.spec                                  every field
  kubectl -n $namespace get rmig hash-tags -o yaml             the whole status: plan, samples, findings, history
  kubectl -n $namespace get rmig -o wide                       holder and rate while it runs
  redis-cli -c -p $REDIS_PORT HGETALL outpost:migration:001_hash_tags   the mark in Redis that Outpost looks for
TXT
}

main() {
  parse_arguments "$@"
  "$root/tests/install.sh"
  build
  dir=$(mktemp -d "${TMPDIR:-/tmp}/outpost-demo.XXXXXX")
  trap end_everything EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password")
  REDIS_PASSWORD=$(cat "$dir/password")
  export REDIS_PASSWORD
  start_servers
  show_keyspace 'The keyspace that Outpost before v0.6 left (sources: legacy keys, targets: current keys)'
  install_operator
  start_operators
  apply_sample
  watch_until Verified
  show_keyspace 'Verified: every source has its target, and the mark is written'
  say 'Raising targetPhase to CleanedUp, with cleanup.after 0s instead of a day'
  kubectl -n "$namespace" patch rmig hash-tags --type merge \
    -p '{"spec":{"targetPhase":"CleanedUp","cleanup":{"after":"0s"}}}'
  watch_until CleanedUp
  show_keyspace 'CleanedUp: the originals are gone; keys that no rule maps, and foreign ones, stand as they were'
  show_end
  if [ "$keep" = yes ]; then
    say 'Running until Ctrl-C. In another shell:'
    printf '  export PATH=%q:$PATH KUBECONFIG=%q REDISCLI_AUTH=$(cat %q)\n  logs: %s/replica-*.log\n' \
      "$(dirname "$(command -v kubectl)")" "$KUBECONFIG" "$dir/password" "$dir"
    # Ending it is how it is meant to end.
    trap 'exit 0' INT TERM
    wait
  fi
  say 'Done: the RedisMigration is CleanedUp, and everything that was started is being stopped'
}

main "$@"
