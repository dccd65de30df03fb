{{/*
The gateway's bootstrap file. What a value of its own decides, such as a port that a Service names too, cannot be set in
proxy.config as well.
*/}}

{{- define "sluice.bootstrap" -}}
{{- include "sluice.bootstrap.refusals" . -}}
{{- $proxy := .Values.proxy -}}
{{- $address := .Values.listenAddress -}}
{{- $listener := dict "address" (printf "%s:%d" $address (int $proxy.port)) -}}
{{- if $proxy.tls.enabled -}}
{{- $_ := set $listener "tls" (dict "certFile" "/etc/sluice/tls/tls.crt" "keyFile" "/etc/sluice/tls/tls.key") -}}
{{- end -}}
{{- $source := dict -}}
{{- if or $proxy.routes.documents $proxy.routes.configMap -}}
{{- $_ := set $source "routes" "/etc/sluice/routes" -}}
{{- end -}}
{{- if $proxy.routerConfiguration.configMap -}}
{{- $_ := set $source "routerConfiguration" "/etc/sluice/router-configuration/routerConfiguration" -}}
{{- end -}}
{{- if .Values.control.enabled -}}
{{- $_ := set $source "push" (dict
      "addresses" (list (printf "https://sluice-control.%s.svc:%d" .Release.Namespace (int .Values.control.push.port)))
      "caFile" "/etc/sluice/control-ca/ca.crt"
      "tokenFile" "/var/run/secrets/sluice-control/token"
      "stateFile" "/var/lib/sluice/state"
      "required" true) -}}
{{- end -}}
{{- $metrics := dict "address" (printf "%s:%d" $address (int $proxy.metrics.port)) -}}
{{- if $proxy.kthenaMetrics.enabled -}}
{{- $_ := set $metrics "kthena" true -}}
{{- end -}}
{{- $file := dict
      "listeners" (list $listener)
      "admin" (dict "address" (printf "127.0.0.1:%d" (int $proxy.admin.port)))
      "metrics" $metrics
      "accessLog" $proxy.accessLog
      "drain" $proxy.drain
      "source" $source -}}
{{- mergeOverwrite $file (deepCopy $proxy.config) | toYaml -}}
{{- end }}

{{- define "sluice.bootstrap.refusals" -}}
{{- $proxy := .Values.proxy -}}
{{- $instead := dict
      "listeners" "proxy.port and proxy.tls"
      "admin" "proxy.admin"
      "metrics" "proxy.metrics and proxy.kthenaMetrics"
      "drain" "proxy.drain"
      "accessLog" "proxy.accessLog"
      "source" "proxy.routes, proxy.routerConfiguration and control" -}}
{{- range $field, $values := $instead -}}
{{- if hasKey $proxy.config $field -}}
{{- fail (printf "proxy.config.%s: set %s instead" $field $values) -}}
{{- end -}}
{{- end -}}
{{- $grace := int64 $proxy.terminationGracePeriodSeconds -}}
{{- $delay := include "sluice.seconds" $proxy.drain.delay | int64 -}}
{{- $timeout := include "sluice.seconds" $proxy.drain.timeout | int64 -}}
{{- if le $grace (add $delay $timeout) -}}
{{- fail (printf "proxy.terminationGracePeriodSeconds: %d s is not above drain.delay and drain.timeout, %d s together: open streams would be cut; raise it or lower them" $grace (add $delay $timeout)) -}}
{{- end -}}
{{- if and $proxy.routes.documents $proxy.routes.configMap -}}
{{- fail "proxy.routes: documents and configMap are both set; put the documents into the ConfigMap" -}}
{{- end -}}
{{- end }}
