{{/*
Words that several templates share. Names of objects are not among them: they are fixed, so that grants, certificates
and commands in documents hold as written.
Those that speak of a component are given a list: the top scope, the component (proxy or control), and the object's name.
*/}}

{{- define "sluice.metadata" -}}
name: {{ index . 2 }}
namespace: {{ (first .).Release.Namespace }}
labels: {{- include "sluice.labels" . | nindent 2 }}
{{- end }}

{{/* Of what belongs to the cluster: the namespace is part of its name. */}}
{{- define "sluice.clusterMetadata" -}}
name: {{ include "sluice.clusterName" . }}
labels: {{- include "sluice.labels" (list . "control") | nindent 2 }}
{{- end }}

{{- define "sluice.clusterName" -}}
sluice-control-{{ .Release.Namespace }}
{{- end }}

{{- define "sluice.labels" -}}
{{- $root := first . -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The control loop finds the gateways, each other's peers, by the first two. Pods have no other labels of ours: those
above change with every version of the chart, and would roll pods that have not changed. */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
{{- end }}

{{- define "sluice.image" -}}
{{- $root := first . -}}
{{- $image := (index $root.Values (index . 1)).image -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* No user of this number exists in the images, and none is needed. */}}
{{- define "sluice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "sluice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A pod's placement, from the values of its component. */}}
{{- define "sluice.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Seconds, rounded down, of a duration such as 1m30s. The schema has checked its form. */}}
{{- define "sluice.seconds" -}}
{{- $milliseconds := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" . -1 -}}
{{- $total = add $total (mul (regexFind "[0-9]+" . | int64) (get $milliseconds (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- div $total 1000 -}}
{{- end }}
