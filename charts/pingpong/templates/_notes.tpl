{{/* How somebody outside pings this server: `pingpong ping` with what it takes. */}}
{{- define "pingpong.notes.ping" -}}
pingpong ping
{{- if eq .Values.server.tls.mode "selfSigned" }} --insecure
{{- else if not .Values.client.tls.systemAuthorities }} --ca ca.crt
{{- end }}
{{- if ne .Values.server.auth.mode "none" }} --token-file token
{{- end }}
{{- end }}
