# shellcheck shell=bash
# Stand-ins of Outpost: they write as the old and the new version would, one key a second. To be sourced; needs
# redis.sh.

# A Deployment of N pods that run a shell script, with further lines of its pod's spec on standard input:
# outpost NAMESPACE NAME REPLICAS REDIS SCRIPT
outpost() {
  {
    cat <<TXT
apiVersion: apps/v1
kind: Deployment
metadata: { name: $2, namespace: $1 }
spec:
  replicas: $3
  selector: { matchLabels: { app.kubernetes.io/name: $2 } }
  template:
    metadata: { labels: { app.kubernetes.io/name: $2 } }
    spec:
      enableServiceLinks: false
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: outpost
          image: localhost/e2e-redis:1
          imagePullPolicy: Never
          command: [sh, -c, '$5']
          env:
            - { name: REDIS, value: $4 }
            - { name: REDISCLI_AUTH, valueFrom: { secretKeyRef: { name: $4-auth, key: password } } }
          securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
TXT
    sed 's/^/      /'
  } | kubectl apply -f - >/dev/null
}

# What the old version writes: a tenant a second, in legacy keys.
old_version='n=0; while :; do redis-cli -c -h $REDIS HSET tenant:e2e-old-$n id e2e-old-$n created_at 2025-06-07T08:09:10Z; n=$((n+1)); sleep 1; done'
# What the new version writes: a tenant a second, in current keys, and one that was there before, over and over.
new_version='n=0; while :; do redis-cli -c -h $REDIS HSET "tenant:{e2e-new-$HOSTNAME-$n}:tenant" id e2e-new-$HOSTNAME-$n; redis-cli -c -h $REDIS HSET "tenant:{e2e-1}:tenant" updated_at "$(date +%s)"; n=$((n+1)); sleep 1; done'

# A gate that asks for 001_hash_tags as an init container, for outpost's standard input: gate REDIS CLUSTER ARGUMENT…
gate() {
  local redis=$1 cluster=$2 arguments
  shift 2
  printf -v arguments ', "%s"' "$@"
  cat <<TXT
initContainers:
  - name: gate
    image: localhost/outpost-migrate-redis:current
    imagePullPolicy: Never
    args: [init, --current, --require, "001_hash_tags"${arguments/#, \"\"/}]
    env:
      - { name: REDIS_HOST, value: $redis }
      - { name: REDIS_CLUSTER_ENABLED, value: "$cluster" }
      - { name: REDIS_PASSWORD, valueFrom: { secretKeyRef: { name: $redis-auth, key: password } } }
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
TXT
}

# deploy/samples/outpost.yaml as it is, but for what can't be had here: the images, and what only Outpost answers.
# sample_of_outpost REDIS
sample_of_outpost() {
  kubectl create --dry-run=client -o json -f "$root/deploy/samples/outpost.yaml" |
    jq --arg redis "$1" --arg script "$new_version" '
      if .kind == "Deployment" then .spec.template.spec |= (
        .initContainers[0] |= (.image = "localhost/outpost-migrate-redis:current" | .imagePullPolicy = "Never") |
        .containers[0] |= (.image = "localhost/e2e-redis:1" | .imagePullPolicy = "Never" | del(.readinessProbe)
          | .command = ["sh", "-c", $script]
          | .env = [{ name: "REDIS", value: $redis },
              { name: "REDISCLI_AUTH", valueFrom: { secretKeyRef: { name: ($redis + "-auth"), key: "password" } } }]))
      else . end' |
    kubectl apply -f - >/dev/null
}

# A field of a pod's gate: gate_state NAMESPACE POD JSONPATH
gate_state() { kubectl -n "$1" get pod "$2" -o "jsonpath={.status.initContainerStatuses[0]$3}"; }
