{{/* The admin port of both: TLS and authentication. */}}

{{/* `HTTPS` with TLS, else empty. */}}
{{- define "pingpong.admin.scheme" -}}
{{- if .Values.admin.tls.secretName }}HTTPS{{ end }}
{{- end }}

{{- define "pingpong.admin.env" -}}
{{- $admin := .Values.admin }}
- name: PINGPONG_ADMIN_PORT
  value: "8080"
{{- if $admin.tls.secretName }}
- name: PINGPONG_ADMIN_TLS_CERT_FILE
  value: /etc/pingpong/admin-tls/tls.crt
- name: PINGPONG_ADMIN_TLS_KEY_FILE
  value: /etc/pingpong/admin-tls/tls.key
{{- end }}
{{- if $admin.auth.tokenSecret.name }}
- name: PINGPONG_ADMIN_TOKEN_FILE
  value: /etc/pingpong/admin-tokens/tokens
{{- end }}
{{- if $admin.auth.basicAuthSecret.name }}
- name: PINGPONG_ADMIN_BASIC_AUTH_FILE
  value: /etc/pingpong/admin-basic-auth/users
{{- end }}
{{- end }}

{{/* Folders, never single files (subPath): kubelet changes only those when a Secret changes. */}}
{{- define "pingpong.admin.mounts" -}}
{{- $admin := .Values.admin }}
{{- if $admin.tls.secretName }}
- name: admin-tls
  mountPath: /etc/pingpong/admin-tls
  readOnly: true
{{- end }}
{{- if $admin.auth.tokenSecret.name }}
- name: admin-tokens
  mountPath: /etc/pingpong/admin-tokens
  readOnly: true
{{- end }}
{{- if $admin.auth.basicAuthSecret.name }}
- name: admin-basic-auth
  mountPath: /etc/pingpong/admin-basic-auth
  readOnly: true
{{- end }}
{{- end }}

{{- define "pingpong.admin.volumes" -}}
{{- $admin := .Values.admin }}
{{- with $admin.tls.secretName }}
- name: admin-tls
  secret:
    secretName: {{ . | quote }}
    # The pod's fsGroup reads it.
    defaultMode: 0440
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- with $admin.auth.tokenSecret }}
{{- if .name }}
- name: admin-tokens
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: tokens
{{- end }}
{{- end }}
{{- with $admin.auth.basicAuthSecret }}
{{- if .name }}
- name: admin-basic-auth
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: users
{{- end }}
{{- end }}
{{- end }}

{{/* How Prometheus's operator reaches the port: part of an endpoint. */}}
{{- define "pingpong.admin.scrape" -}}
{{- $admin := .Values.admin }}
{{- $auth := $admin.auth }}
{{- if $admin.tls.secretName }}
scheme: https
tlsConfig:
  {{- if $admin.tls.serverName }}
  ca:
    secret:
      name: {{ $admin.tls.secretName | quote }}
      key: ca.crt
  serverName: {{ $admin.tls.serverName | quote }}
  {{- else }}
  insecureSkipVerify: true
  {{- end }}
{{- end }}
{{- if $auth.tokenSecret.name }}
authorization:
  credentials:
    name: {{ $auth.tokenSecret.name | quote }}
    key: {{ $auth.tokenSecret.scrapeKey | default $auth.tokenSecret.key | quote }}
{{- else if $auth.basicAuthSecret.name }}
basicAuth:
  username:
    name: {{ $auth.basicAuthSecret.name | quote }}
    key: {{ $auth.basicAuthSecret.scrapeUsernameKey | quote }}
  password:
    name: {{ $auth.basicAuthSecret.name | quote }}
    key: {{ $auth.basicAuthSecret.scrapePasswordKey | quote }}
{{- end }}
{{- end }}

{{/* For the notes: the command that reads the metrics by way of a forwarded port. */}}
{{- define "pingpong.admin.curl" -}}
{{- $auth := .Values.admin.auth -}}
curl
{{- if .Values.admin.tls.secretName }} --insecure{{ end }}
{{- if $auth.tokenSecret.name }} -H "Authorization: Bearer $TOKEN"
{{- else if $auth.basicAuthSecret.name }} --user "$USER:$PASSWORD"
{{- end }} {{ if .Values.admin.tls.secretName }}https://{{ end }}localhost:8080/metrics
{{- end }}
