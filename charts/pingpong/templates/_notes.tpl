{{/* The command that pings this server from outside: `pingpong ping` and its options. */}}
{{- define "pingpong.notes.ping" -}}
pingpong ping
{{- if eq .Values.server.tls.mode "selfSigned" }} --insecure
{{- else if not .Values.client.tls.systemAuthorities }} --ca ca.crt
{{- end }}
{{- if ne .Values.server.auth.mode "none" }} --token-file token
{{- end }}
{{- end }}
