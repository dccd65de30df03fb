{{/* The command line of sluice-control, a YAML list. */}}

{{- define "sluice.control.flags" -}}
{{- $control := .Values.control -}}
{{- $address := .Values.listenAddress -}}
- --push-address={{ $address }}:{{ $control.push.port }}
- --operations-address={{ $address }}:{{ $control.operations.port }}
- --leader-elect={{ $control.leaderElection.enabled }}
- --lease-namespace={{ .Release.Namespace }}
{{- if $control.leaderElection.enabled }}
- --replicas=https://sluice-control.{{ .Release.Namespace }}.svc:{{ $control.push.port }}
- --replica-token-file=/var/run/secrets/sluice-control/token
{{- end }}
{{- with $control.namespaces }}
- --namespaces={{ join "," . }}
{{- end }}
{{- with $control.secretNamespaces }}
- --secret-namespaces={{ join "," . }}
{{- end }}
- --webhook={{ $control.webhook.enabled }}
{{- if $control.webhook.enabled }}
- --webhook-address={{ $address }}:{{ $control.webhook.port }}
- --webhook-service-name=sluice-control-webhook
- --webhook-configuration={{ include "sluice.clusterName" . }}
{{- if $control.webhook.certificates.secretName }}
- --webhook-certificates=/etc/sluice/webhook
{{- end }}
{{- end }}
- --grant=system:serviceaccount:{{ .Release.Namespace }}:sluice-proxy={{ join "," .Values.proxy.namespaces | default "*" }}
{{- range $control.grants }}
- --grant={{ . }}
{{- end }}
{{- if eq .Values.log.format "json" }}
- --log-json
{{- end }}
{{- end }}

{{/* What control follows, and where it reports: in every namespace, or in those it is bound to. */}}
{{- define "sluice.control.namespaced-rules" -}}
- apiGroups: [networking.serving.volcano.sh]
  resources: [externalmodelproviders, modelroutes, modelservers]
  verbs: [list, watch]
- apiGroups: [networking.serving.volcano.sh]
  resources: [externalmodelproviders/status, modelroutes/status, modelservers/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Credentials of ExternalModelProviders. RBAC knows no labels: the control loop asks for labelled Secrets only. */}}
{{- define "sluice.control.credential-rules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}

{{/* A Role in some namespace and its binding to the control loop. */}}
{{- define "sluice.control.role" }}
{{- $metadata := printf "name: %s-%s\nnamespace: %s\nlabels:\n%s" .name .root.Release.Namespace .namespace
      (include "sluice.labels" (list .root "control") | indent 2) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{- $metadata | nindent 2 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{- $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}-{{ .root.Release.Namespace }}
subjects:
  - kind: ServiceAccount
    name: sluice-control
    namespace: {{ .root.Release.Namespace }}
{{- end }}
