{{/* Rules of NetworkPolicies. All take the values `networkPolicy`. */}}

{{- define "pingpong.adminIngress" -}}
- ports:
    - port: 8080
      protocol: TCP
  {{- with .adminFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Wherever the DNS server is: it may be a pod, or the node's own. */}}
{{- define "pingpong.dnsEgress" -}}
- ports:
    {{- range .dnsPorts }}
    - port: {{ int . }}
      protocol: UDP
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- define "pingpong.apiEgress" -}}
- ports:
    {{- range .apiPorts }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
{{- end }}
