{{/* The settings of the client, and of the pod of `helm test`. */}}

{{/* Not empty where the client pings this release's server. */}}
{{- define "pingpong.client.ownServer" -}}
{{- if and .Values.server.enabled (not .Values.client.targets) }}true{{ end }}
{{- end }}

{{- define "pingpong.server.url" -}}
https://{{ include "pingpong.server.name" . }}.{{ .Release.Namespace }}.svc:4433/ping
{{- end }}

{{/* PINGPONG_TARGETS */}}
{{- define "pingpong.client.sources" -}}
{{- if .Values.client.targets }}
{{- join "," .Values.client.targets }}
{{- else if eq .Values.client.discovery "endpointslice" -}}
endpointslice://{{ .Release.Namespace }}/{{ include "pingpong.server.name" . }}
{{- else }}
{{- include "pingpong.server.url" . }}
{{- end }}
{{- end }}

{{/* The namespaces whose EndpointSlices the client reads, as a JSON array. */}}
{{- define "pingpong.client.sliceNamespaces" -}}
{{- $namespaces := list }}
{{- range splitList "," (include "pingpong.client.sources" .) }}
{{- if hasPrefix "endpointslice://" . }}
{{- $namespaces = append $namespaces (trimPrefix "endpointslice://" . | splitList "/" | first) }}
{{- end }}
{{- end }}
{{- $namespaces | uniq | toJson }}
{{- end }}

{{/*
Whom the client trusts: `hash`, `anybody`, `secret`, `configMap`, `system`, or `serverSecret`, the
`ca.crt` of the server's Secret.
*/}}
{{- define "pingpong.client.trust" -}}
{{- $tls := .Values.client.tls }}
{{- if $tls.certHash }}hash
{{- else if $tls.insecure }}anybody
{{- else if $tls.caSecret.name }}secret
{{- else if $tls.caConfigMap.name }}configMap
{{- else if or $tls.systemAuthorities (not (include "pingpong.client.ownServer" .)) }}system
{{- else if ne .Values.server.tls.mode "selfSigned" }}serverSecret
{{- else }}anybody
{{- end }}
{{- end }}

{{/* The audience of the client's tokens. */}}
{{- define "pingpong.client.audience" -}}
{{- .Values.client.auth.audience | default .Values.server.auth.audience }}
{{- end }}

{{- define "pingpong.client.env" -}}
{{- $client := .Values.client }}
{{- $trust := include "pingpong.client.trust" . }}
{{- include "pingpong.settings" $client.settings }}
- name: PINGPONG_TARGETS
  value: {{ include "pingpong.client.sources" . | quote }}
{{- include "pingpong.admin.env" . }}
{{- if eq $trust "anybody" }}
- name: PINGPONG_INSECURE
  value: "true"
{{- else if eq $trust "hash" }}
- name: PINGPONG_CERT_HASH
  value: {{ $client.tls.certHash | quote }}
{{- else if ne $trust "system" }}
- name: PINGPONG_CA
  value: /etc/pingpong/ca/ca.crt
{{- end }}
{{- if ne $client.auth.mode "none" }}
- name: PINGPONG_TOKEN_FILE
  value: /etc/pingpong/token/token
{{- end }}
{{- with $client.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pingpong.client.mounts" -}}
{{- if has (include "pingpong.client.trust" .) (list "serverSecret" "secret" "configMap") }}
- name: ca
  mountPath: /etc/pingpong/ca
  readOnly: true
{{- end }}
{{- if ne .Values.client.auth.mode "none" }}
- name: token
  mountPath: /etc/pingpong/token
  readOnly: true
{{- end }}
{{- end }}

{{- define "pingpong.client.volumes" -}}
{{- $trust := include "pingpong.client.trust" . }}
{{- $tls := .Values.client.tls }}
{{- if eq $trust "serverSecret" }}
- name: ca
  secret:
    secretName: {{ include "pingpong.server.tlsSecret" . | quote }}
    # The authority alone: the client has no business with the server's key.
    items:
      - key: ca.crt
        path: ca.crt
{{- else if eq $trust "secret" }}
- name: ca
  secret:
    secretName: {{ $tls.caSecret.name | quote }}
    items:
      - key: {{ $tls.caSecret.key | quote }}
        path: ca.crt
{{- else if eq $trust "configMap" }}
- name: ca
  configMap:
    name: {{ $tls.caConfigMap.name | quote }}
    items:
      - key: {{ $tls.caConfigMap.key | quote }}
        path: ca.crt
{{- end }}
{{- if eq .Values.client.auth.mode "secret" }}
- name: token
  secret:
    secretName: {{ .Values.client.auth.tokenSecret.name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .Values.client.auth.tokenSecret.key | quote }}
        path: token
{{- else if eq .Values.client.auth.mode "serviceAccount" }}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          audience: {{ include "pingpong.client.audience" . | quote }}
          expirationSeconds: {{ int .Values.client.auth.expirationSeconds }}
          path: token
{{- end }}
{{- end }}

{{/* What `helm test` pings, as a JSON array: URLs, since `pingpong ping` discovers nothing. */}}
{{- define "pingpong.test.targets" -}}
{{- $targets := list }}
{{- if include "pingpong.client.ownServer" . }}
{{- $targets = list (include "pingpong.server.url" .) }}
{{- else if .Values.client.enabled }}
{{- range .Values.client.targets }}
{{- if not (regexMatch "^(srv|endpointslice)://" .) }}
{{- $targets = append $targets . }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $targets }}
{{- end }}

{{/* Not empty unless the server would refuse the test, which has the client's token. */}}
{{- define "pingpong.test.admitted" -}}
{{- if or .Values.client.targets (eq .Values.server.auth.mode "none") (ne .Values.client.auth.mode "none") }}true{{ end }}
{{- end }}
