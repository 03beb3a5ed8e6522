# shellcheck shell=bash
# An API server of the chart checks' own, with etcd, on free ports of the loopback address. To be sourced.
#
# start_control_plane FOLDER PROGRAMS   sets KUBECONFIG; stop_control_plane ends what was started.

control_plane_pids=()

free_ports() {
  python3 -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in sockets))' "$1"
}

start_control_plane() {
  local folder=$1 programs=$2 client peer secure tries=300
  mkdir -p "$folder"
  read -r client peer secure < <(free_ports 3)
  "$programs/etcd" --data-dir "$folder/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$client" \
    --advertise-client-urls "http://127.0.0.1:$client" --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" \
    >"$folder/etcd.log" 2>&1 &
  control_plane_pids+=($!)
  openssl genrsa -out "$folder/service-accounts.key" 2048 2>/dev/null
  echo "secret,admin,admin,system:masters" >"$folder/tokens.csv"
  "$programs/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --secure-port "$secure" \
    --cert-dir "$folder/certificates" --service-account-issuer https://kubernetes.default.svc \
    --service-account-signing-key-file "$folder/service-accounts.key" \
    --service-account-key-file "$folder/service-accounts.key" --token-auth-file "$folder/tokens.csv" \
    --authorization-mode Node,RBAC --service-cluster-ip-range 10.96.0.0/16 --endpoint-reconciler-type none \
    >"$folder/kube-apiserver.log" 2>&1 &
  control_plane_pids+=($!)
  export KUBECONFIG=$folder/kubeconfig
  cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{ name: test, cluster: { server: "https://127.0.0.1:$secure", insecure-skip-tls-verify: true } }]
users: [{ name: admin, user: { token: secret } }]
contexts: [{ name: test, context: { cluster: test, user: admin } }]
current-context: test
END
  until kubectl get --raw /readyz >/dev/null 2>&1; do
    if ! kill -0 "${control_plane_pids[1]}" 2>/dev/null || ((tries-- == 0)); then
      tail -n 20 "$folder/kube-apiserver.log" >&2
      return 1
    fi
    sleep 0.2
  done
  "$programs/kube-controller-manager" --kubeconfig "$KUBECONFIG" --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file "$folder/service-accounts.key" --secure-port 0 \
    >"$folder/kube-controller-manager.log" 2>&1 &
  control_plane_pids+=($!)
}

stop_control_plane() {
  [[ ${#control_plane_pids[@]} -gt 0 ]] || return 0
  # etcd last: the others don't end well without it.
  local number
  for ((number = ${#control_plane_pids[@]} - 1; number >= 0; number--)); do
    kill "${control_plane_pids[number]}" 2>/dev/null || true
    wait "${control_plane_pids[number]}" 2>/dev/null || true
  done
  control_plane_pids=()
}
