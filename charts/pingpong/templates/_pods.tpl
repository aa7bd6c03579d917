{{/* What the pods of server and client have in common. */}}

{{/* Settings as environment variables. Takes a map of them by their names in camel case. */}}
{{- define "pingpong.settings" -}}
{{- range $name := keys . | sortAlpha }}
- name: PINGPONG_{{ snakecase $name | upper }}
  value: {{ include "pingpong.text" (get $ $name) | quote }}
{{- end }}
{{- end }}

{{/* Security, and where pods run. Takes (list $ component values). */}}
{{- define "pingpong.podOptions" -}}
{{- $root := index . 0 }}
{{- $values := index . 2 -}}
enableServiceLinks: false
{{- with $values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq $values.kind "Deployment" }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        {{- include "pingpong.selectorLabels" (list $root (index $ 1)) | nindent 8 }}
    # Each version's pods are spread by themselves: those that leave don't count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Image, security and resources of a container. Takes (list $ values). */}}
{{- define "pingpong.containerOptions" -}}
{{- $values := index . 1 -}}
image: {{ include "pingpong.image" (list (index . 0) $values.image) | quote }}
imagePullPolicy: {{ (index . 0).Values.image.pullPolicy }}
{{- with $values.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Takes (list $ probes). */}}
{{- define "pingpong.probes" -}}
{{- $probes := index . 1 }}
{{- $scheme := include "pingpong.admin.scheme" (index . 0) }}
startupProbe:
  httpGet:
    path: /livez
    port: admin
    {{- with $scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml $probes.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
    {{- with $scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml $probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
    {{- with $scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml $probes.readiness | nindent 2 }}
{{- end }}

{{/* How many pods there are, and how they are replaced. Takes (list $ values). */}}
{{- define "pingpong.rollout" -}}
{{- $values := index . 1 -}}
{{- if eq $values.kind "Deployment" }}
{{- if not (dig "autoscaling" "enabled" false $values) -}}
replicas: {{ kindIs "invalid" $values.replicas | ternary 1 $values.replicas | int }}
{{- end }}
strategy:
{{- else }}
updateStrategy:
{{- end }}
  type: RollingUpdate
  rollingUpdate:
    {{- toYaml $values.rollingUpdate | nindent 4 }}
minReadySeconds: {{ int $values.minReadySeconds }}
{{- end }}
