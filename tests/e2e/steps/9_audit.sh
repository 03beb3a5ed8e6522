#!/usr/bin/env bash
# What the operator did, by the API server's audit log, against what the chart grants: every granted verb was used,
# and none was refused.
# shellcheck source=step.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/step.sh"

account=outpost-migrate-redis

# Lines `GROUP/RESOURCE[/SUBRESOURCE] VERB` that bindings of any kind grant the account.
granted() {
  kubectl get rolebindings,clusterrolebindings -A -o json |
    jq -r --arg name "$account" '.items[]
      | select(any(.subjects[]?; .kind == "ServiceAccount" and .name == $name and .namespace == "outpost"))
      | [.roleRef.kind, .roleRef.name, .metadata.namespace // ""] | @tsv' |
    while IFS=$'\t' read -r kind name namespace; do
      kubectl get "$kind" "$name" ${namespace:+-n "$namespace"} -o json
    done |
    jq -r '.rules[] | . as $rule | .verbs[] as $verb
      | if .nonResourceURLs then .nonResourceURLs[] + " " + $verb
        else .apiGroups[] as $group | .resources[] | $group + "/" + . + " " + $verb end' | sort -u
}

# Lines of the same form, from the audit log; $1 is a condition on the answer's code.
done_with() {
  jq -r --arg user "system:serviceaccount:outpost:$account" "select(.user.username == \$user and (.responseStatus.code | $1))
    | if .objectRef.resource then (.objectRef.apiGroup // \"\") + \"/\" + .objectRef.resource
        + (if .objectRef.subresource then \"/\" + .objectRef.subresource else \"\" end) + \" \" + .verb
      else .requestURI + \" \" + .verb end" "$work/audit.log" | sort -u
}

refused=$(done_with '. == 403')
[[ -z $refused ]] || die "refused: $refused"
note 'nothing was refused'
granted=$(granted)
[[ -n $granted ]] || die 'the account has no role'
unused=$(comm -23 <(printf '%s\n' "$granted") <(done_with '. < 400'))
[[ -z $unused ]] || die "granted and never used: $unused"
note "every granted verb was used:"
printf '%s\n' "$granted" | sed 's/^/    /'
