{{/* As _check.tpl: what holds for the pods of server and client alike. */}}

{{- define "pingpong.check.pods" -}}
{{- range $component := list "server" "client" }}
{{- $values := get $.Values $component }}
{{- if $values.enabled }}
{{- if and (eq $values.kind "DaemonSet") (not (kindIs "invalid" $values.replicas)) }}
{{ $component }}.replicas ({{ int $values.replicas }}) contradicts {{ $component }}.kind DaemonSet, which has a pod on every node: leave it out (null)
{{- end }}
{{- $missing := include "pingpong.text" $values.rollingUpdate.maxUnavailable | trimSuffix "%" | int }}
{{- $extra := include "pingpong.text" $values.rollingUpdate.maxSurge | trimSuffix "%" | int }}
{{- if not (or $missing $extra) }}
{{ $component }}.rollingUpdate has maxUnavailable 0 and maxSurge 0, so that no pod can be replaced: raise one
{{- end }}
{{- if and (eq $values.kind "DaemonSet") $missing $extra }}
{{ $component }}.rollingUpdate of a DaemonSet takes either maxUnavailable or maxSurge: set one of them to 0
{{- end }}
{{- range $name, $value := $values.podLabels }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (hasKey $.Values.commonLabels $name) }}
{{ $component }}.podLabels has {{ $name }}, which pods have already: take it out
{{- end }}
{{- end }}
{{- $variables := list }}
{{- range $values.extraEnv }}
{{- if has .name $variables }}
{{ $component }}.extraEnv has {{ .name }} twice: leave one
{{- end }}
{{- $variables = append $variables .name }}
{{- if hasPrefix "PINGPONG_" .name }}
{{ $component }}.extraEnv has {{ .name }}: settings belong in {{ $component }}.settings, and those that are not there the chart makes of other values
{{- end }}
{{- end }}
{{- $seen := list }}
{{- range $values.topologySpreadConstraints }}
{{- $pair := printf "%s and %s" .topologyKey .whenUnsatisfiable }}
{{- if has $pair $seen }}
{{ $component }}.topologySpreadConstraints has {{ $pair }} twice: leave one
{{- end }}
{{- $seen = append $seen $pair }}
{{- end }}
{{- range $resource, $limit := dig "limits" dict $values.resources }}
{{- $request := dig "requests" $resource "" $values.resources }}
{{- if gt (include "pingpong.quantity" $request | float64) (include "pingpong.quantity" $limit | float64) }}
{{ $component }}.resources.requests.{{ $resource }} ({{ include "pingpong.text" $request }}) is above its limit ({{ include "pingpong.text" $limit }}): lower it, or raise {{ $component }}.resources.limits.{{ $resource }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Kubernetes quantity (`100m`, `64Mi`) as a number. */}}
{{- define "pingpong.quantity" -}}
{{- $text := include "pingpong.text" . }}
{{- $number := regexFind "^[0-9.]+(e[-+]?[0-9]+)?" $text }}
{{- $factors := dict "m" 0.001 "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mulf (float64 $number) (get $factors (trimPrefix $number $text)) }}
{{- end }}
