{{/* The settings of the server. */}}

{{- define "pingpong.server.env" -}}
{{- $server := .Values.server }}
{{- include "pingpong.settings" $server.settings }}
- name: PINGPONG_BIND_PORT
  value: "4433"
{{- include "pingpong.admin.env" . }}
- name: PINGPONG_DRAIN_TIMEOUT
  value: {{ include "pingpong.text" $server.drain.timeoutSeconds | quote }}
{{- if $server.drain.stayReady }}
- name: PINGPONG_DRAIN_STAY_READY
  value: "true"
{{- end }}
{{- if ne $server.tls.mode "selfSigned" }}
- name: PINGPONG_TLS_CERT_FILE
  value: /etc/pingpong/tls/tls.crt
- name: PINGPONG_TLS_KEY_FILE
  value: /etc/pingpong/tls/tls.key
{{- end }}
{{- if ne $server.auth.mode "none" }}
- name: PINGPONG_AUTH
  value: {{ $server.auth.mode }}
{{- end }}
{{- if eq $server.auth.mode "token" }}
- name: PINGPONG_TOKEN_FILE
  value: /etc/pingpong/tokens/tokens
{{- end }}
{{- if eq $server.auth.mode "kubernetes" }}
- name: PINGPONG_TOKEN_AUDIENCE
  value: {{ $server.auth.audience | quote }}
{{- end }}
{{- with $server.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Folders, never single files (subPath): kubelet changes only those when a Secret changes. */}}
{{- define "pingpong.server.mounts" -}}
{{- if ne .Values.server.tls.mode "selfSigned" }}
- name: tls
  mountPath: /etc/pingpong/tls
  readOnly: true
{{- end }}
{{- if eq .Values.server.auth.mode "token" }}
- name: tokens
  mountPath: /etc/pingpong/tokens
  readOnly: true
{{- end }}
{{- end }}

{{- define "pingpong.server.volumes" -}}
{{- if ne .Values.server.tls.mode "selfSigned" }}
- name: tls
  secret:
    secretName: {{ include "pingpong.server.tlsSecret" . | quote }}
    # The pod's fsGroup reads it.
    defaultMode: 0440
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- if eq .Values.server.auth.mode "token" }}
- name: tokens
  secret:
    secretName: {{ .Values.server.auth.tokenSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .Values.server.auth.tokenSecret.key | quote }}
        path: tokens
{{- end }}
{{- end }}

{{/* Every name that a client may know the server by; not each cert-manager's issuer signs stars. */}}
{{- define "pingpong.server.dnsNames" -}}
{{- $services := list (include "pingpong.server.name" .) }}
{{- if .Values.server.externalService.enabled }}
{{- $services = append $services (include "pingpong.externalService.name" .) }}
{{- end }}
{{- $names := list }}
{{- range $service := $services }}
{{- $namespaced := printf "%s.%s" $service $.Release.Namespace }}
{{- $names = concat $names (list $service $namespaced (printf "%s.svc" $namespaced)) }}
{{- $names = append $names (printf "%s.svc.%s" $namespaced $.Values.server.tls.clusterDomain) }}
{{- end }}
{{- if include "pingpong.certificate.enabled" . }}
{{- /* A pod's own name below the headless Service: 10-0-0-1.pingpong-server.default.svc */}}
{{- $headless := printf "*.%s.%s.svc" (include "pingpong.server.name" .) .Release.Namespace }}
{{- $names = append $names $headless }}
{{- $names = append $names (printf "%s.%s" $headless .Values.server.tls.clusterDomain) }}
{{- end }}
{{- range concat $names .Values.server.tls.extraDnsNames | uniq }}
- {{ . | quote }}
{{- end }}
{{- end }}
