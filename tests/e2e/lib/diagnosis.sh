# shellcheck shell=bash
# What one wants to see when a step fails. To be sourced; needs KUBECONFIG and $work.

diagnose() {
  {
    echo '== pods'
    kubectl get pods -A -o wide
    echo '== events'
    kubectl get events -A --sort-by=.metadata.creationTimestamp | tail -n 60
    echo '== resources'
    kubectl get rmig -A -o yaml | grep -v '^ *f:' | tail -n 300
    local namespace pod
    for namespace in $(kubectl get namespaces -o name | grep outpost); do
      for pod in $(kubectl -n "${namespace#namespace/}" get pods -o name); do
        echo "== logs of $pod in $namespace"
        kubectl -n "${namespace#namespace/}" logs "$pod" --all-containers --prefix --tail=40
        kubectl -n "${namespace#namespace/}" logs "$pod" --all-containers --prefix --previous --tail=20
      done
    done
    echo '== kubelet'
    grep -E '^[EF]' "$work/logs/kubelet.log" | tail -n 20
  } 2>&1 | grep -v 'previous terminated container' >&2 || true
}
