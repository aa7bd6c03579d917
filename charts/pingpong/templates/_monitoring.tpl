{{/* What is made for Prometheus and its operator. */}}

{{/* Not empty where an object of the operator is wanted, and the cluster knows such. Takes (list $ kind). */}}
{{- define "pingpong.monitoring.has" -}}
{{- $root := index . 0 }}
{{- $kind := index . 1 }}
{{- if (get $root.Values.monitoring (untitle $kind)).enabled }}
{{- if $root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind) }}true{{ end }}
{{- end }}
{{- end }}

{{/* For the notes: what is wanted, and left out. Empty where there is nothing of the kind. */}}
{{- define "pingpong.monitoring.notes" -}}
{{- range $kind := list "PodMonitor" "ServiceMonitor" "PrometheusRule" }}
{{- if and (get $.Values.monitoring (untitle $kind)).enabled (not (include "pingpong.monitoring.has" (list $ $kind))) }}
monitoring.{{ untitle $kind }} is left out: this cluster does not know monitoring.coreos.com/v1/{{ $kind }}. Install the Prometheus operator, then upgrade this release.
{{- end }}
{{- end }}
{{- end }}

{{/* How the pods are scraped. Takes (list $ values), of podMonitor or serviceMonitor. */}}
{{- define "pingpong.monitoring.endpoint" -}}
{{- $values := index . 1 -}}
port: admin
path: /metrics
{{- with include "pingpong.admin.scrape" (index . 0) | trim }}
{{ . }}
{{- end }}
{{- with $values.interval }}
interval: {{ . }}
{{- end }}
{{- with $values.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
relabelings:
  # The same job whichever way the pods are found: alerts and dashboard go by it.
  - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
    regex: (.+)
    replacement: {{ include "pingpong.fullname" (index . 0) }}-$1
    targetLabel: job
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  {{- with $values.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The PromQL matchers of this release's series. Takes (list $ component). */}}
{{- define "pingpong.monitoring.selector" -}}
{{- $root := index . 0 }}
{{- $monitoring := $root.Values.monitoring }}
{{- if $monitoring.prometheusRule.selector }}
{{- $monitoring.prometheusRule.selector }}
{{- else -}}
namespace="{{ $root.Release.Namespace }}"
{{- if or $monitoring.podMonitor.enabled $monitoring.serviceMonitor.enabled -}}
,job="{{ include "pingpong.fullname" $root }}-{{ index . 1 }}"
{{- end }}
{{- end }}
{{- end }}

{{/* Days that a certificate must be valid for. Takes (list $ component), of who tells of it. */}}
{{- define "pingpong.monitoring.certificateDays" -}}
{{- $root := index . 0 }}
{{- $days := $root.Values.monitoring.prometheusRule.thresholds.certificateDays }}
{{- $isOwn := or (eq (index . 1) "server") (include "pingpong.client.ownServer" $root) }}
{{- if not (kindIs "invalid" $days) }}
{{- include "pingpong.text" $days }}
{{- else if and $isOwn (eq $root.Values.server.tls.mode "selfSigned") -}}
3
{{- else -}}
7
{{- end }}
{{- end }}

{{/* Thresholds by name, as JSON of texts. Takes (list $ component). */}}
{{- define "pingpong.monitoring.thresholds" -}}
{{- $root := index . 0 }}
{{- $thresholds := dict }}
{{- range $name, $value := $root.Values.monitoring.prometheusRule.thresholds }}
{{- $_ := set $thresholds $name (include "pingpong.text" $value) }}
{{- end }}
{{- $_ := set $thresholds "certificateDays" (include "pingpong.monitoring.certificateDays" .) }}
{{- /* Names are looked up so often at most: a success that is younger says nothing. */ -}}
{{- $interval := $root.Values.client.settings.discoveryInterval | default 30 }}
{{- $stale := maxf (mulf 3 $interval) $root.Values.monitoring.prometheusRule.thresholds.discoveryStaleSeconds }}
{{- $_ := set $thresholds "discoveryStaleSeconds" (include "pingpong.text" $stale) }}
{{- toJson $thresholds }}
{{- end }}

{{/*
The groups of files/alerts.yaml for this release: of its components, with its matchers between the
braces after a metric's name, and with its thresholds, each of which stands before a comment with
its name.
*/}}
{{- define "pingpong.monitoring.groups" -}}
{{- $root := . }}
{{- $values := .Values.monitoring.prometheusRule }}
{{- range $group := (.Files.Get "files/alerts.yaml" | fromYaml).groups }}
{{- $component := trimPrefix "pingpong-" $group.name }}
{{- if (get $root.Values $component).enabled }}
{{- $selector := include "pingpong.monitoring.selector" (list $root $component) }}
{{- $thresholds := include "pingpong.monitoring.thresholds" (list $root $component) | fromJson }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- if not (has $rule.alert $values.disabled) }}
{{- $expr := regexReplaceAll "(pingpong_[a-z_]+)\\{" $rule.expr "${1}{@selector@," | replace ",}" "}" }}
{{- $expr = replace "@selector@" $selector $expr }}
{{- range $name, $text := $thresholds }}
{{- $expr = regexReplaceAll (printf "[0-9.]+ # %s\\b" $name) $expr (printf "%s # %s" $text $name) }}
{{- end }}
{{- $_ := set $rule "expr" $expr }}
{{- $_ := set $rule "labels" (merge (dict) $rule.labels $values.alertLabels) }}
{{- with $values.runbookUrl }}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s#%s" . (lower $rule.alert)) }}
{{- end }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- if $rules }}
- name: {{ include "pingpong.fullname" $root }}-{{ $component }}
  rules:
    {{- toYaml $rules | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* As _check.tpl. */}}
{{- define "pingpong.check.monitoring" -}}
{{- range $name := list "podMonitor" "serviceMonitor" }}
{{- $monitor := get $.Values.monitoring $name }}
{{- if and $monitor.enabled $monitor.interval $monitor.scrapeTimeout }}
{{- if gt (include "pingpong.milliseconds" $monitor.scrapeTimeout | int) (include "pingpong.milliseconds" $monitor.interval | int) }}
monitoring.{{ $name }}.scrapeTimeout ({{ $monitor.scrapeTimeout }}) is above interval ({{ $monitor.interval }}), and the Prometheus operator takes no such object: lower it, or raise the interval
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A duration as Prometheus has it (`1m30s`), in milliseconds. */}}
{{- define "pingpong.milliseconds" -}}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $sum = add $sum (mul (trimSuffix $unit . | int) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}
