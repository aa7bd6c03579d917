{{/*
The authority and the certificate of `server.tls.mode` authority: two Secrets, which
`pingpong certificate` makes and renews. A Job runs it before the release is installed, upgraded or
rolled back, and a CronJob in between.
*/}}

{{/* Not empty where the chart has an authority of its own. */}}
{{- define "pingpong.certificate.enabled" -}}
{{- if and .Values.server.enabled (eq .Values.server.tls.mode "authority") }}true{{ end }}
{{- end }}

{{/* The Secret with the authority's key. No pod mounts it. */}}
{{- define "pingpong.certificate.authoritySecret" -}}
{{ include "pingpong.fullname" . }}-authority
{{- end }}

{{/*
The name of what a run needs. Takes (list $ run): `certificate`, of the Job, or `renewal`, of the
CronJob, whose name has 52 characters at most.
*/}}
{{- define "pingpong.certificate.name" -}}
{{- $length := eq (index . 1) "renewal" | ternary 44 47 }}
{{- printf "%s-%s" (include "pingpong.fullname" (index . 0) | trunc $length | trimSuffix "-") (index . 1) }}
{{- end }}

{{/* The Job and what it needs are hooks: there while it runs. Takes the weight. */}}
{{- define "pingpong.certificate.hook" -}}
helm.sh/hook: pre-install,pre-upgrade,pre-rollback
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Takes (list $ run). */}}
{{- define "pingpong.certificate.jobSpec" -}}
{{- $root := index . 0 }}
{{- $server := $root.Values.server -}}
backoffLimit: 2
template:
  metadata:
    labels:
      {{- include "pingpong.podLabels" (list $root "certificate" dict) | nindent 6 }}
  spec:
    serviceAccountName: {{ include "pingpong.certificate.name" . }}
    automountServiceAccountToken: true
    # Each attempt's log stays as long as the Job.
    restartPolicy: Never
    {{- include "pingpong.podOptions" (list $root "certificate" (merge (dict "kind" "Job") $server)) | nindent 4 }}
    containers:
      - name: certificate
        {{- include "pingpong.containerOptions" (list $root $server) | nindent 8 }}
        # Not the entry point of the target `dev`, which never ends.
        command: [pingpong]
        args:
          - certificate
          - {{ printf "--namespace=%s" $root.Release.Namespace | quote }}
          - --certificate-secret={{ include "pingpong.server.tlsSecret" $root }}
          - --authority-secret={{ include "pingpong.certificate.authoritySecret" $root }}
          {{- include "pingpong.server.dnsNames" $root | trim | nindent 10 }}
          {{- range $root.Values.server.tls.extraIpAddresses }}
          - {{ . | quote }}
          {{- end }}
{{- end }}
