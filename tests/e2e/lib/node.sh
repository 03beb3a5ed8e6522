# shellcheck shell=bash
# The node: containerd, kubelet, kube-proxy, pod network and name server. To be sourced; needs processes.sh.
#
# It runs in network, mount and pid namespaces of its own (see run.sh), so the usual folders and ports are free,
# and whatever it mounts and adds goes with the namespaces.

node_name=e2e
node_address=10.250.0.1
pod_range=10.244.0.0/24
service_range=10.96.0.0/16

# Folders that these programs write to by default are ours in this mount namespace.
prepare_folders() {
  mount --make-rshared /
  mkdir -p "$work/var-lib" "$work/var-log"
  mount --bind "$work/var-lib" /var/lib
  mount --bind "$work/var-log" /var/log
  mount -t tmpfs tmpfs /run
}

prepare_network() {
  ip link set lo up
  # An address that pods reach too; the loopback addresses are each pod's own.
  ip address add "$node_address/32" dev lo
  # The packet filter turns a Service's address into a pod's, but only of packets that have a way to go.
  ip route add "$service_range" dev lo
  sysctl -qw net.ipv4.ip_forward=1
  mkdir -p "$work/cni"
  # A point-to-point link a pod: all traffic is routed, so Services work without the kernel module that shows
  # bridged packets to the packet filter. Nothing enforces network policies.
  cat >"$work/cni/10-pods.conflist" <<TXT
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    { "type": "ptp", "ipam": { "type": "host-local", "subnet": "$pod_range", "routes": [{ "dst": "0.0.0.0/0" }] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
TXT
}

containerd_configuration() {
  cat <<TXT
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/e2e-pause:1"
  # Without CAP_SYS_RESOURCE no process may lower its own score, and no pod would start.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$work/cni"
TXT
}

kubelet_configuration() {
  cat <<TXT
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# Nobody but this test reaches it: the network namespace has no way out.
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
clusterDNS: [$node_address]
clusterDomain: cluster.local
resolvConf: ""
cgroupDriver: cgroupfs
cgroupRoot: $cgroup
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
# However full the machine is, it is not this node's to make room.
evictionHard: { memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, imagefs.inodesFree: 1% }
imageGCHighThresholdPercent: 100
TXT
}

start_containerd() {
  containerd_configuration >"$work/containerd.toml"
  start containerd containerd --config "$work/containerd.toml"
  started_up containerd 30 ctr version
}

# Makes an image of an archive known to the node.
import_image() { ctr -n k8s.io images import "$1" >>"$work/logs/images.log" 2>&1 || die "$1 can't be imported"; }

start_kubelet() {
  start kubelet kubelet --config "$work/kubelet.yaml" --kubeconfig "$work/kubelet.kubeconfig" \
    --hostname-override "$node_name" --node-ip "$node_address"
}

start_coredns() {
  cat >"$work/Corefile" <<TXT
.:53 {
  bind $node_address
  errors
  ready $node_address:8181
  kubernetes cluster.local {
    kubeconfig $work/coredns.kubeconfig
  }
}
TXT
  kubectl apply -f - >/dev/null <<'TXT'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: coredns }
rules:
  - { apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch] }
  - { apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: coredns }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns }]
TXT
  start coredns coredns -conf "$work/Corefile"
  started_up coredns 30 curl -fsS "http://$node_address:8181/ready"
}

start_node() {
  start_containerd
  local image
  for image in "$images"/*.tar; do import_image "$image"; done
  kubelet_configuration >"$work/kubelet.yaml"
  start_kubelet
  start kube-proxy kube-proxy --kubeconfig "$work/kube-proxy.kubeconfig" --proxy-mode=nftables \
    --hostname-override="$node_name" --cluster-cidr="$pod_range" --conntrack-max-per-core=0
  started_up kubelet 60 kubectl wait --for=condition=Ready --timeout=1s "node/$node_name"
  start_coredns
  started_up kube-proxy 60 curl -kfsS --max-time 2 https://10.96.0.1/readyz
}
