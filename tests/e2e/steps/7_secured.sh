#!/usr/bin/env bash
# Redis that takes TLS with client certificates only, and an ACL user with the rights that README lists; first with
# a wrong password. The gate of a pod that gets at it in the same way is held, then let through.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"
# shellcheck source=outpost.sh
. "$e2e/lib/outpost.sh"

certificate() { # NAME SUBJECT-ALTERNATIVE-NAMES: signed by the authority in $files
  openssl req -newkey rsa:2048 -nodes -keyout "$files/$1.key" -subj "/CN=$1" -out "$files/$1.csr" 2>/dev/null
  openssl x509 -req -in "$files/$1.csr" -CA "$files/ca.crt" -CAkey "$work/redis/ca.key" -CAcreateserial -days 2 \
    -extfile <(printf 'subjectAltName=%s\n' "$2") -out "$files/$1.crt" 2>/dev/null
  rm "$files/$1.csr"
}

files=$(redis_files outpost secured)
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/redis/ca.key" -out "$files/ca.crt" -days 2 \
  -subj '/CN=e2e authority' 2>/dev/null
certificate server 'DNS:secured,DNS:secured.outpost.svc,DNS:secured.outpost.svc.cluster.local,IP:127.0.0.1'
certificate client 'DNS:client'

# The user as README gives it, with a password of its own.
password=$(secret)
(umask 077 && printf %s "$password" >"$work/redis/user-password")
user=$(sed -n 's/^ACL SETUSER outpost-migrate //p' "$root/README.md")
[[ $user == *'>PASSWORD'* ]] || die 'README has no user with a password to replace'
redis_secrets outpost secured <<TXT
port 0
tls-port 6379
tls-cert-file /etc/redis/server.crt
tls-key-file /etc/redis/server.key
tls-ca-cert-file /etc/redis/ca.crt
tls-auth-clients yes
user outpost-migrate ${user/PASSWORD/$password}
TXT
redis_pods outpost secured 1
redis_cli_arguments=(--tls --cacert /etc/redis/ca.crt --cert /etc/redis/client.crt --key /etc/redis/client.key)
load outpost secured 1 100
expect 'legacy keys' "$(census outpost secured | count_of legacy)" 370

kubectl -n outpost create secret tls secured-client --cert="$files/client.crt" --key="$files/client.key" >/dev/null

# A pod with the gate: certificate, key and authority are files, user and password environment.
kubectl -n outpost create secret generic secured-gate --from-file=ca.crt="$files/ca.crt" \
  --from-literal=username=outpost-migrate --from-file=password="$work/redis/user-password" >/dev/null
outpost outpost gated 1 secured 'while :; do sleep 1; done' <<'TXT'
initContainers:
  - name: gate
    image: localhost/outpost-migrate-redis:current
    imagePullPolicy: Never
    args: [init, --current, --require=001_hash_tags, --wait=10m, --redis-tls, --redis-tls-ca-file=/tls/ca/ca.crt,
      --redis-tls-cert-file=/tls/client/tls.crt, --redis-tls-key-file=/tls/client/tls.key]
    env:
      - { name: REDIS_HOST, value: secured }
      - { name: REDIS_USERNAME, valueFrom: { secretKeyRef: { name: secured-gate, key: username } } }
      - { name: REDIS_PASSWORD, valueFrom: { secretKeyRef: { name: secured-gate, key: password } } }
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
    volumeMounts: [{ name: ca, mountPath: /tls/ca, readOnly: true }, { name: client, mountPath: /tls/client, readOnly: true }]
volumes:
  - { name: ca, secret: { secretName: secured-gate, items: [{ key: ca.crt, path: ca.crt }] } }
  - { name: client, secret: { secretName: secured-client } }
TXT
one_gated() { [[ $(pods_of outpost gated | wc -l) == 1 ]]; }
gate_waits() {
  local log
  log=$(kubectl -n outpost logs "$gated" -c gate)
  echo "$log"
  [[ $log == *'pending: 001_hash_tags'* && -n $(gate_state outpost "$gated" .state.running.startedAt) ]]
}
until_true 60 'a pod with the gate' one_gated
gated=$(pods_of outpost gated)
until_true 60 'the gate says over TLS what is pending, and waits' gate_waits
expect "$gated" "$(kubectl -n outpost get pod "$gated" -o 'jsonpath={.status.phase}')" Pending

wrong=not-the-password-of-anybody
kubectl -n outpost create secret generic secured-login --from-file=ca.crt="$files/ca.crt" \
  --from-literal=username=outpost-migrate --from-file=password=<(printf %s "$wrong") >/dev/null
kubectl apply -f - >/dev/null <<'TXT'
apiVersion: migrate.outpost.dev/v1alpha1
kind: RedisMigration
metadata: { name: secured, namespace: outpost }
spec:
  migration: 001_hash_tags
  redis:
    host: secured
    usernameSecretRef: { name: secured-login, key: username }
    passwordSecretRef: { name: secured-login, key: password }
    tls: { enabled: true, caSecretRef: { name: secured-login, key: ca.crt }, clientCertSecretRef: { name: secured-client } }
TXT
until_reason outpost secured AuthenticationFailed 60
expect_text 'the condition' "$(condition outpost secured Ready message)" secured-login

gate_waits >/dev/null || die 'the gate does not wait any more, though nothing is migrated'
event_names_secret() {
  kubectl -n outpost get events -o json |
    jq -er '.items[] | select(.involvedObject.name == "secured" and .type == "Warning") | .message' | grep -F secured-login
}
until_true 30 'a warning that names the Secret' event_names_secret
note "the event: $(event_names_secret | head -n 1)"
said=$(kubectl -n outpost get events,rmig -o yaml; kubectl -n outpost logs "$gated" -c gate
  kubectl -n outpost logs -l app.kubernetes.io/name=outpost-migrate-redis --tail=-1)
[[ $said != *"$wrong"* && $said != *"$password"* ]] || die 'a password shows in events, status or logs'
note 'no password in events, status and logs'

# The right password: picked up without a restart, at once when asked.
kubectl -n outpost create secret generic secured-login --from-file=ca.crt="$files/ca.crt" \
  --from-literal=username=outpost-migrate --from-file=password="$work/redis/user-password" --dry-run=client -o yaml |
  kubectl apply -f - >/dev/null 2>&1
kubectl -n outpost annotate rmig secured migrate.outpost.dev/requestedAt=now >/dev/null
until_condition outpost secured Verified 120
expect 'legacy keys without an equal target' "$(census outpost secured | without_target)" 0
# The one that was held, not another in its place.
kubectl -n outpost wait --for=condition=Ready --timeout=60s "pod/$gated" >/dev/null || die "$gated is not let through"
expect 'exit code of its gate' "$(gate_state outpost "$gated" .state.terminated.exitCode)" 0
expect 'restarts of its gate' "$(gate_state outpost "$gated" .restartCount)" 0

# Accepted; what enforces it is the cluster's network, and this one's does not.
release upgrade outpost --reuse-values --set networkPolicy.enabled=true >/dev/null
expect 'network policies' "$(kubectl -n outpost get networkpolicy -o name | wc -l)" 1
