# shellcheck shell=bash
# etcd, API server, controller manager and scheduler, each with a user of its own. To be sourced; needs
# processes.sh, secret.sh, and the addresses of node.sh.

api=https://$node_address:6443

# Adds a user to the API server's list, and writes its kubeconfig to $work/NAME.kubeconfig:
# add_user NAME USER [GROUP].
add_user() {
  local name=$1 user=$2 group=${3-} token
  token=$(secret)
  printf '%s,%s,%s,"%s"\n' "$token" "$user" "$name" "$group" >>"$work/tokens.csv"
  cat >"$work/$name.kubeconfig" <<TXT
apiVersion: v1
kind: Config
clusters: [{ name: e2e, cluster: { server: "$api", certificate-authority: "$work/pki/apiserver.crt" } }]
users: [{ name: "$name", user: { token: "$token" } }]
contexts: [{ name: e2e, context: { cluster: e2e, user: "$name" } }]
current-context: e2e
TXT
}

add_users() {
  add_user admin admin system:masters
  add_user controller-manager system:kube-controller-manager
  add_user scheduler system:kube-scheduler
  add_user kubelet "system:node:$node_name" system:nodes
  add_user kube-proxy system:kube-proxy
  add_user coredns coredns
  # Somebody with the rights that a step gives.
  add_user engineer engineer
}

# What service accounts do, to hold it against what they may.
audit_policy() {
  cat <<'TXT'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts"]
  - level: None
TXT
}

start_control_plane() {
  mkdir -p "$work/pki" "$work/etcd"
  openssl genrsa -out "$work/pki/service-accounts.key" 2048 2>/dev/null
  audit_policy >"$work/audit-policy.yaml"
  add_users

  # 127.0.0.1 is the loopback of this network namespace alone.
  start etcd etcd --data-dir "$work/etcd" --unsafe-no-fsync --logger zap --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  started_up etcd 30 curl -fsS http://127.0.0.1:2379/health

  start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$work/pki" \
    --bind-address="$node_address" --advertise-address="$node_address" --secure-port=6443 \
    --service-cluster-ip-range="$service_range" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-signing-key-file="$work/pki/service-accounts.key" \
    --service-account-key-file="$work/pki/service-accounts.key" \
    --token-auth-file="$work/tokens.csv" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --allow-privileged=false \
    --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$work/audit-policy.yaml" --audit-log-path="$work/audit.log"
  started_up kube-apiserver 60 kubectl get --raw /readyz

  start kube-controller-manager kube-controller-manager --kubeconfig="$work/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --bind-address=127.0.0.1 --cert-dir="$work/pki" \
    --service-account-private-key-file="$work/pki/service-accounts.key" --root-ca-file="$work/pki/apiserver.crt"
  start kube-scheduler kube-scheduler --kubeconfig="$work/scheduler.kubeconfig" --leader-elect=false \
    --bind-address=127.0.0.1
}
