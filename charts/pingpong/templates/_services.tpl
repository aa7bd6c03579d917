{{/* Takes the values of a Service. */}}
{{- define "pingpong.ipFamilies" -}}
{{- with .ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
