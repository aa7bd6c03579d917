{{/* What objects are called, and what they are labelled with. */}}

{{- define "pingpong.name" -}}
{{- .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/*
The name that all objects begin with. A Service's name has 63 characters, letters, digits and
hyphens; `-server-external` is the longest that is added.
*/}}
{{- define "pingpong.fullname" -}}
{{- $name := include "pingpong.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | replace "." "-" | trunc 47 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 47 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pingpong.server.name" -}}
{{ include "pingpong.fullname" . }}-server
{{- end }}

{{- define "pingpong.client.name" -}}
{{ include "pingpong.fullname" . }}-client
{{- end }}

{{- define "pingpong.externalService.name" -}}
{{ include "pingpong.fullname" . }}-server-external
{{- end }}

{{/*
The Secret with the server's certificate. What the chart makes and cert-manager's have different
names, so that neither is taken for the other where the mode is changed.
*/}}
{{- define "pingpong.server.tlsSecret" -}}
{{- $end := eq .Values.server.tls.mode "authority" | ternary "certificate" "server-tls" }}
{{- .Values.server.tls.secretName | default (printf "%s-%s" (include "pingpong.fullname" .) $end) }}
{{- end }}

{{/* Names of the ServiceAccounts. */}}
{{- define "pingpong.server.serviceAccount" -}}
{{- $made := ternary (include "pingpong.server.name" .) "default" .Values.server.serviceAccount.create }}
{{- .Values.server.serviceAccount.name | default $made }}
{{- end }}

{{- define "pingpong.client.serviceAccount" -}}
{{- $made := ternary (include "pingpong.client.name" .) "default" .Values.client.serviceAccount.create }}
{{- .Values.client.serviceAccount.name | default $made }}
{{- end }}

{{/* Labels that selectors go by. Takes (list $ component). */}}
{{- define "pingpong.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "pingpong.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels that all objects and pods of the release have, whatever they are for. */}}
{{- define "pingpong.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: pingpong
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods. Takes (list $ component more), more being the operator's own. */}}
{{- define "pingpong.podLabels" -}}
{{ include "pingpong.selectorLabels" . }}
{{ include "pingpong.commonLabels" (index . 0) }}
{{- with index . 2 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of objects. Takes (list $ component), or $ for what belongs to both components. */}}
{{- define "pingpong.labels" -}}
{{- $root := . }}
{{- if kindIs "slice" . }}
{{- $root = index . 0 -}}
{{ include "pingpong.selectorLabels" . }}
{{- else -}}
app.kubernetes.io/name: {{ include "pingpong.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{ include "pingpong.commonLabels" $root }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* An image with its registry, and its tag or digest. Takes (list $ image). */}}
{{- define "pingpong.image" -}}
{{- $all := (index . 0).Values.image }}
{{- $image := index . 1 }}
{{- $tag := include "pingpong.text" ($image.tag | default $all.tag) }}
{{- if not (or $tag $image.digest) }}
{{- $tag = (index . 0).Chart.AppVersion }}
{{- end }}
{{- with $all.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- with $tag }}:{{ . }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* A value as a program reads it: lists by commas, large numbers in digits. */}}
{{- define "pingpong.text" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}
