# shellcheck shell=bash
# Redis in pods, loaded and read with redis-cli and Lua in them: independent of the product. To be sourced; needs
# say.sh, secret.sh, KUBECONFIG, and $e2e, the folder of these scripts.

# The pods of NAME in NAMESPACE run redis-server with the Secret NAME-conf; the Secret NAME-auth opens it:
# redis_pods NAMESPACE NAME COUNT
redis_pods() {
  kubectl -n "$1" apply -f - >/dev/null <<TXT
apiVersion: v1
kind: Service
metadata: { name: $2 }
spec:
  selector: { app: $2 }
  ports: [{ name: redis, port: 6379 }]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: $2 }
spec:
  serviceName: $2
  replicas: $3
  podManagementPolicy: Parallel
  selector: { matchLabels: { app: $2 } }
  template:
    metadata: { labels: { app: $2 } }
    spec:
      enableServiceLinks: false
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 2
      securityContext: { runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: redis
          image: localhost/e2e-redis:1
          imagePullPolicy: Never
          command: [redis-server, /etc/redis/redis.conf]
          env: [{ name: REDISCLI_AUTH, valueFrom: { secretKeyRef: { name: $2-auth, key: password } } }]
          readinessProbe: { tcpSocket: { port: 6379 }, periodSeconds: 1 }
          securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
          volumeMounts: [{ name: conf, mountPath: /etc/redis }, { name: data, mountPath: /data }]
      volumes:
        - { name: conf, secret: { secretName: $2-conf } }
        - { name: data, emptyDir: {} }
TXT
  kubectl -n "$1" rollout status "statefulset/$2" --timeout=120s >/dev/null ||
    die "the pods of $2 in $1 do not start"
}

# Makes the Secrets NAME-auth (key password) and NAME-conf (redis.conf, with the lines of standard input, and what
# else is in redis_files): redis_secrets NAMESPACE NAME
redis_secrets() {
  local files
  files=$(redis_files "$1" "$2")
  (umask 077 && secret >"$files/../password")
  {
    printf 'port 6379\ndir /data\nprotected-mode no\nsave ""\n'
    printf 'requirepass %s\nmasterauth %s\n' "$(<"$files/../password")" "$(<"$files/../password")"
    cat
  } >"$files/redis.conf"
  kubectl -n "$1" create secret generic "$2-auth" --from-file=password="$files/../password" >/dev/null
  kubectl -n "$1" create secret generic "$2-conf" --from-file="$files" >/dev/null
}

# The folder whose files the pods of NAME find in /etc/redis: redis_files NAMESPACE NAME
redis_files() {
  mkdir -p "$work/redis/$1/$2/files"
  printf '%s\n' "$work/redis/$1/$2/files"
}

# One server: redis_server NAMESPACE NAME
redis_server() {
  redis_secrets "$1" "$2" </dev/null
  redis_pods "$1" "$2" 1
}

# Three primaries with REPLICAS each: redis_cluster NAMESPACE NAME REPLICAS
redis_cluster() {
  local pods=$((3 + 3 * $3)) addresses
  redis_secrets "$1" "$2" <<<'cluster-enabled yes'
  redis_pods "$1" "$2" "$pods"
  mapfile -t addresses < <(kubectl -n "$1" get pods -l "app=$2" -o jsonpath='{range .items[*]}{.status.podIP}:6379{"\n"}{end}')
  in_redis "$1" "$2-0" --cluster create "${addresses[@]}" --cluster-replicas "$3" --cluster-yes >/dev/null
  until_true 60 "every node of $2 sees the whole cluster" cluster_is_whole "$1" "$2" "$pods"
}

# Whether all of COUNT nodes know each other, and the replicas have their data.
cluster_is_whole() {
  local number info
  for ((number = 0; number < $3; number++)); do
    info=$(in_redis "$1" "$2-$number" CLUSTER INFO) || return
    echo "$info"
    [[ $info == *cluster_state:ok* && $info == *"cluster_known_nodes:$3"* ]] || return
    info=$(in_redis "$1" "$2-$number" INFO replication) || return
    echo "$info"
    [[ $3 == 3 || $info == *connected_slaves:1* || $info == *master_link_status:up* ]] || return
  done
}

# Further arguments of redis-cli, for servers that want more than a password.
redis_cli_arguments=()

# redis-cli in a pod, with its password from its environment: in_redis NAMESPACE POD ARGUMENT…
in_redis() {
  local namespace=$1 pod=$2
  shift 2
  kubectl -n "$namespace" exec -i "$pod" -- redis-cli -e --raw "${redis_cli_arguments[@]}" "$@" </dev/null
}

# The pods of NAME in NAMESPACE that own keys.
primaries() {
  local pods pod role
  pods=$(kubectl -n "$1" get pods -l "app=$2" -o name) || return
  for pod in $pods; do
    role=$(in_redis "$1" "${pod#pod/}" INFO replication) || return
    [[ $role != *role:master* ]] || printf '%s\n' "${pod#pod/}"
  done
}

# Writes the keyspace that lua/load.lua describes: load NAMESPACE NAME FIRST COUNT
load() {
  local pods pod
  pods=$(primaries "$1" "$2") || die "$2 in $1 can't be read"
  for pod in $pods; do
    in_redis "$1" "$pod" EVAL "$(<"$e2e/lua/load.lua")" 0 "$3" "$4" >/dev/null || die "$pod can't be loaded"
  done
}

# What lua/census.lua reads, of all primaries, sorted; with the last line `whole`, without which it counts for
# nothing: census NAMESPACE NAME
census() {
  local pods pod lines
  pods=$(primaries "$1" "$2") || return
  lines=$(for pod in $pods; do in_redis "$1" "$pod" EVAL_RO "$(<"$e2e/lua/census.lua")" 0 || exit; done) || return
  printf '%s\nwhole\n' "$lines" | grep . | sort
}

# How many keys of KIND (legacy, current, other) the census on standard input has.
count_of() { awk -v kind="$1" '$1 == kind { count++ } $1 == "whole" { whole = 1 } END { print whole ? count + 0 : "unknown" }'; }

# How many legacy keys of the census on standard input have no equal target.
without_target() {
  awk '$1 == "current" { target[$2] = $3 } $1 == "legacy" { source[$2] = $3 } $1 == "whole" { whole = 1 }
    END { for (key in source) if (source[key] != target[key]) missing++; print whole ? missing + 0 : "unknown" }'
}

# How many current keys of the census on standard input differ from the legacy key that they are copies of.
unequal_targets() {
  awk '$1 == "current" { target[$2] = $3 } $1 == "legacy" { source[$2] = $3 } $1 == "whole" { whole = 1 }
    END { for (key in target) if (source[key] != target[key]) unequal++; print whole ? unequal + 0 : "unknown" }'
}

# The mark of a migration: mark NAMESPACE NAME MIGRATION FIELD
mark() { in_redis "$1" "$2-0" -c HGET "outpost:migration:$3" "$4"; }
