#!/usr/bin/env bash
# The chart's life on a real API server (no pods: there is no kubelet here): every set of values is accepted by it; a
# release is installed; the control loop runs with the flags and the identity that the release gives it and is denied
# nothing; an upgrade meets no conflict and loses nothing; and when it is taken away nothing stays behind.
# Everything listens on loopback and ends with this script. KUBE names a control plane that is built already.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$repository"

for tool in openssl python3; do command -v "$tool" >/dev/null || fail "no $tool found: apt-get install $tool"; done
e2e/scripts/fetch-helm.sh
[[ -x ${KUBE:-} ]] || e2e/scripts/fetch-cluster.sh
kube=$(realpath "${KUBE:-$cache/cluster/kube}")
cargo build --quiet --locked --workspace --bin sluice-control
program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/sluice-control")
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-chart.XXXXXX")
children=()
cleanup() {
    local status=$?
    ((${#children[@]} == 0)) || kill -KILL "${children[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    ((status == 0)) || tail -n 5 "$work"/*.log || true
    rm -rf "$work"
}
trap cleanup EXIT

# --- an API server, and an administrator by token ---
cd "$work"
etcd=$(free_port) taken_ports="$etcd"
peer=$(free_port) taken_ports+=" $peer"
port=$(free_port) taken_ports+=" $port"
push=$(free_port) taken_ports+=" $push"
webhook_port=$(free_port) taken_ports+=" $webhook_port"
operations=$(free_port) taken_ports+=" $operations"
debug=$(free_port) taken_ports+=" $debug"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out tokens.key 2>/dev/null
openssl pkey -in tokens.key -pubout -out tokens.pem
echo 'administrator-token,administrator,1,system:masters' >tokens.csv
# What the release's accounts ask, and what they are answered.
cat >audit.yaml <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts:sluice-system"]}
- {level: None}
YAML
"$kube" etcd --data-dir="$work/etcd" --client-url="http://127.0.0.1:$etcd" --peer-url="http://127.0.0.1:$peer" >etcd.log 2>&1 &
children+=($!)
"$kube" apiserver --etcd-servers="http://127.0.0.1:$etcd" --bind-address=127.0.0.1 --advertise-address=127.0.0.1 \
    --secure-port="$port" --service-cluster-ip-range=10.0.0.0/24 --endpoint-reconciler-type=none --cert-dir="$work/certificates" \
    --service-account-issuer="https://127.0.0.1:$port" --service-account-key-file=tokens.pem \
    --service-account-signing-key-file=tokens.key --token-auth-file=tokens.csv --authorization-mode=RBAC \
    --audit-policy-file=audit.yaml --audit-log-path="$work/audit.json" --audit-log-mode=blocking >apiserver.log 2>&1 &
children+=($!)
cat >kubeconfig <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: administrator, user: {token: administrator-token}}]
contexts: [{name: test, context: {cluster: test, user: administrator}}]
current-context: test
YAML
export KUBECONFIG="$work/kubeconfig" HELM_CONFIG_HOME="$work" HELM_CACHE_HOME="$work" HELM_DATA_HOME="$work"
kubectl() { "$kube" kubectl "$@"; }
helm() { "$cache/cluster/bin/helm" "$@"; }
# until SECONDS COMMAND...: until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>>"$work/waiting.log"; do
        ((SECONDS < end)) || fail "not in time: $*"
        sleep 0.2
    done
}
until_true 60 kubectl get --raw /readyz
cd "$repository"

# --- every set of values, judged by the API server ---
namespace=sluice-system
for each in "$namespace" team-a team-b models; do kubectl create namespace "$each" >/dev/null; done
until_true 20 kubectl get namespace default
kubectl apply --server-side -f helm/sluice/crds >/dev/null
# A kind of the Prometheus operator, known by name only.
kubectl apply -f - >/dev/null <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ServiceMonitor, plural: servicemonitors, singular: servicemonitor}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
YAML
kubectl wait --for=condition=Established --timeout=30s crd --all >/dev/null
for values in e2e/chart/values/*.yaml; do
    answer=$(NAMESPACE=$namespace e2e/scripts/render-chart.sh --values "$values" 2>/dev/null |
        kubectl apply --server-side --dry-run=server --field-manager=helm -f - 2>&1) || fail "$values: $answer"
    ! grep -i warning <<<"$answer" || fail "$values: the API server warns"
    say "e2e-chart: $(basename "$values"): $(wc -l <<<"$answer") objects accepted"
done

# --- install ---
# What is there without the chart, to compare with at the end.
objects() {
    local kinds
    kinds=$(kubectl api-resources --verbs=list --output=name | grep -v '^events' | paste -sd ,)
    kubectl get "$kinds" --all-namespaces --output=name --ignore-not-found --show-kind 2>/dev/null |
        grep -v '^\(lease\|apiservice\|flowschema\|prioritylevel\|ipaddress\|servicecidr\|endpoint\)' | sort
}
before=$(objects)
helm install sluice helm/sluice --namespace "$namespace" --set control.secretNamespaces='{team-a}' >"$work/install.log"
say "e2e-chart: installed"

# --- the control loop, as the release would have it run ---
webhook=sluice-control-$namespace
# Sets `control_process`: the control loop with its own flags, this machine's addresses in place of the pod's, and its account.
start_control() {
    local token flags
    token=$(kubectl create token sluice-control --namespace "$namespace")
    sed "s/administrator-token/$token/" "$work/kubeconfig" >"$work/control.kubeconfig"
    mapfile -t flags < <(kubectl get deployment sluice-control --namespace "$namespace" \
        --output='jsonpath={range .spec.template.spec.containers[0].args[*]}{@}{"\n"}{end}' |
        sed -e "s/^--push-address=.*/--push-address=127.0.0.1:$push/" -e "s/^--webhook-address=.*/--webhook-address=127.0.0.1:$webhook_port/" \
            -e "s/^--operations-address=.*/--operations-address=127.0.0.1:$operations/")
    env POD_NAME=control-0 POD_NAMESPACE="$namespace" POD_IP=127.0.0.1 "$program" "${flags[@]}" \
        --kubeconfig="$work/control.kubeconfig" --debug-address="127.0.0.1:$debug" >>"$work/control.log" 2>&1 &
    control_process=$!
    children+=("$control_process")
    # Ready: every watch has brought its first list.
    wait_for "http://127.0.0.1:$operations/readyz" 60 "$control_process" sluice-control
}
stop_control() {
    kill -TERM "$control_process"
    wait "$control_process" || fail "the control loop ended with status $? after SIGTERM: $(tail -n 3 "$work/control.log")"
    ! leads || fail "the control loop ended and keeps the lease"
}
start_control
in_namespace() { kubectl --namespace "$namespace" "$@"; }
bundles() { kubectl get validatingwebhookconfiguration "$webhook" --output=jsonpath='{.webhooks[*].clientConfig.caBundle}'; }
three_bundles() { (($(bundles | wc -w) == 3)); }
leads() { [[ $(in_namespace get lease sluice-control --output=jsonpath='{.spec.holderIdentity}') == *control-0* ]]; }
authority() { in_namespace get configmap sluice-control-ca --output='jsonpath={.data.ca\.crt}'; }
published() { authority | grep -q 'BEGIN CERTIFICATE'; }
until_true 20 leads
until_true 20 published
until_true 20 three_bundles
# Gateways verify it by the name that stands in their bootstrap file, the API server by the webhook's.
authority >"$work/ca.crt"
for served in "$push sluice-control.$namespace.svc" "$webhook_port sluice-control-webhook.$namespace.svc"; do
    openssl s_client -connect "127.0.0.1:${served% *}" -servername "${served#* }" -verify_hostname "${served#* }" \
        -CAfile "$work/ca.crt" -verify_return_error </dev/null >"$work/served.log" 2>&1 || fail "${served#* }: $(<"$work/served.log")"
done
say "e2e-chart: the control loop runs with the release's flags and identity: it leads, and its authority is published"

control() { kubectl --as="system:serviceaccount:$namespace:sluice-control" --namespace "$namespace" "$@"; }
# audit FILE: fails when one of the account's own requests was denied. (Those made in its name to ask what it may are not its own.)
audit() {
    python3 - "$1" <<'PYTHON'
import json, sys
own = [event for event in map(json.loads, open(sys.argv[1])) if "impersonatedUser" not in event]
denied = {f"{e['verb']} {e['requestURI']}" for e in own if e.get("responseStatus", {}).get("code") == 403}
if denied:
    sys.exit("error: denied to the control loop: " + ", ".join(sorted(denied)))
used = sorted({e["verb"] + " " + e["objectRef"]["resource"] for e in own if "objectRef" in e})
print(f"e2e-chart: {len(own)} requests of its account, none denied: {', '.join(used)}")
PYTHON
}
for allowed in "list pods --all-namespaces" "list nodes" "watch modelroutes --all-namespaces" "list secrets --namespace=team-a" \
    "patch modelroutes --subresource=status --namespace=team-b" "create tokenreviews" "create events.events.k8s.io --namespace=team-b"; do
    # shellcheck disable=SC2086
    [[ $(control auth can-i $allowed 2>/dev/null) == yes ]] || fail "control may not $allowed"
done
for refused in "list secrets" "list secrets --all-namespaces" "get secrets --namespace=kube-system" "list secrets --namespace=team-b" \
    "create secrets" "delete pods" "update modelroutes --namespace=team-a" "get validatingwebhookconfigurations/other" "create pods"; do
    # shellcheck disable=SC2086
    [[ $(control auth can-i $refused 2>/dev/null) == no ]] || fail "control may $refused"
done
# Everyone who is known may do these; the gateway may do nothing besides.
may() { kubectl --as="$1" --as-group=system:serviceaccounts --as-group=system:authenticated auth can-i --list --namespace "$namespace" 2>/dev/null; }
[[ $(may "system:serviceaccount:$namespace:sluice-proxy") == "$(may "system:serviceaccount:$namespace:nobody")" ]] ||
    fail "the gateway has permissions"
say "e2e-chart: control can do its work and no more, the gateway nothing"

# --- upgrade: other values, nothing of control's lost ---
secret=$(in_namespace get secret sluice-control-ca --output=jsonpath='{.data}')
[[ $secret == *tls.key* ]] || fail "there is no authority in the Secret: $secret"
bundles=$(bundles)
# Nobody leads Services anywhere here, so the webhook cannot be asked, and its policy refuses.
refused=$(kubectl apply -f config/examples/kthena/simple.yaml 2>&1) && fail "taken although the webhook cannot be asked"
grep -q 'failed calling webhook "modelroute.networking.serving.volcano.sh"' <<<"$refused" || fail "$refused"
helm upgrade sluice helm/sluice --namespace "$namespace" --set control.webhook.failurePolicy=Ignore --set proxy.replicas=3 >"$work/upgrade.log" 2>&1 ||
    fail "upgrade: $(<"$work/upgrade.log")"
[[ $(kubectl get validatingwebhookconfiguration "$webhook" --output=jsonpath='{.webhooks[*].failurePolicy}') == "Ignore Ignore Ignore" ]] ||
    fail "the upgrade left the webhook's policy"
[[ $(bundles) == "$bundles" ]] || fail "the upgrade took the webhook's authority away"
[[ $(in_namespace get secret sluice-control-ca --output=jsonpath='{.data}') == "$secret" ]] || fail "the upgrade emptied the Secret"
[[ $(authority) == "$(<"$work/ca.crt")" ]] || fail "the upgrade emptied the ConfigMap"
leads || fail "the upgrade took the lease away"
say "e2e-chart: upgraded, what control wrote is still there"
for example in config/examples/kthena/*.yaml; do
    kubectl apply --namespace team-a -f "$example" >/dev/null || fail "$example is refused"
done
say "e2e-chart: $(kubectl get modelroutes,modelservers,externalmodelproviders --namespace team-a --output=name | wc -l) resources of config/examples/kthena accepted"
kubectl delete --namespace team-a -f config/examples/kthena >/dev/null

# --- the end of the control loop ---
stop_control

# --- uninstall, and the same with permissions in two namespaces only ---
helm uninstall sluice --namespace "$namespace" >/dev/null
helm install sluice helm/sluice --namespace "$namespace" --values e2e/chart/values/restricted.yaml \
    --set control.webhook.failurePolicy=Ignore >"$work/install.log"
kubectl apply --namespace team-a -f config/examples/kthena/simple.yaml >/dev/null
start_control
until_true 20 three_bundles
judged() { kubectl get modelroute chat --namespace team-a --output=jsonpath='{.status.conditions[*].type}' | grep -q Accepted; }
until_true 20 judged
stop_control
audit "$work/audit.json"
kubectl delete --namespace team-a -f config/examples/kthena/simple.yaml >/dev/null
helm uninstall sluice --namespace "$namespace" >/dev/null
after=$(objects)
(($(wc -l <<<"$before") > 50)) || fail "the list of objects is too short to be true: $before"
[[ $before == "$after" ]] || fail "left behind: $(diff <(echo "$before") <(echo "$after") | grep '^[<>]')"
say "e2e-chart: uninstalled, the $(wc -l <<<"$after") objects of before are there and no others"
