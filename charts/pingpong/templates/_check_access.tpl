{{/* As _check.tpl: who trusts whom. */}}

{{- define "pingpong.check.trust" -}}
{{- $tls := .Values.client.tls }}
{{- if .Values.client.enabled }}
{{- $given := list }}
{{- if $tls.certHash }}{{ $given = append $given "certHash" }}{{ end }}
{{- if $tls.insecure }}{{ $given = append $given "insecure" }}{{ end }}
{{- if $tls.caSecret.name }}{{ $given = append $given "caSecret" }}{{ end }}
{{- if $tls.caConfigMap.name }}{{ $given = append $given "caConfigMap" }}{{ end }}
{{- if $tls.systemAuthorities }}{{ $given = append $given "systemAuthorities" }}{{ end }}
{{- if gt (len $given) 1 }}
client.tls says several times whom to trust ({{ join ", " $given }}): leave one
{{- end }}
{{- if and (include "pingpong.client.ownServer" .) (eq .Values.server.tls.mode "selfSigned") }}
{{- if or $tls.caSecret.name $tls.caConfigMap.name $tls.systemAuthorities }}
client.tls.{{ first $given }} cannot verify a self-signed certificate (server.tls.mode selfSigned): set the mode to authority, secret or certManager, or take client.tls.{{ first $given }} out
{{- else if and (kindIs "bool" $tls.insecure) (not $tls.insecure) (not $tls.certHash) }}
client.tls.insecure is false, but no client can verify a self-signed certificate (server.tls.mode selfSigned): set the mode to authority, secret or certManager, or leave client.tls.insecure out
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pingpong.check.admin" -}}
{{- $admin := .Values.admin }}
{{- if and $admin.tls.serverName (not $admin.tls.secretName) }}
admin.tls.serverName ({{ $admin.tls.serverName }}) does nothing without admin.tls.secretName: set the Secret with the certificate, or take the name out
{{- end }}
{{- if and $admin.auth.tokenSecret.scrapeKey (not $admin.auth.tokenSecret.name) }}
admin.auth.tokenSecret.scrapeKey ({{ $admin.auth.tokenSecret.scrapeKey }}) does nothing without admin.auth.tokenSecret.name: set the Secret with the tokens, or take the key out
{{- end }}
{{- end }}

{{- define "pingpong.check.auth" -}}
{{- $server := .Values.server.auth }}
{{- $client := .Values.client.auth }}
{{- if .Values.server.enabled }}
{{- if and (eq $server.mode "token") (not $server.tokenSecret.name) }}
server.auth.mode token needs server.auth.tokenSecret.name, the Secret with the tokens
{{- end }}
{{- if and (ne $server.mode "token") $server.tokenSecret.name }}
server.auth.tokenSecret ({{ $server.tokenSecret.name }}) contradicts server.auth.mode {{ $server.mode }}: set the mode to token, or take the Secret out
{{- end }}
{{- if and (eq $server.mode "kubernetes") .Values.rbac.create (not .Values.server.serviceAccount.create) (not .Values.server.serviceAccount.name) }}
server.auth.mode kubernetes would let every pod with the namespace's default ServiceAccount ask about tokens: set server.serviceAccount.create, or its name, or rbac.create to false
{{- end }}
{{- end }}
{{- if .Values.client.enabled }}
{{- if and (include "pingpong.client.sliceNamespaces" . | ne "[]") .Values.rbac.create (not .Values.client.serviceAccount.create) (not .Values.client.serviceAccount.name) }}
endpointslice discovery would let every pod with the namespace's default ServiceAccount read EndpointSlices: set client.serviceAccount.create, or its name, or rbac.create to false
{{- end }}
{{- end }}
{{- if and (eq $client.mode "secret") (not $client.tokenSecret.name) }}
client.auth.mode secret needs client.auth.tokenSecret.name, the Secret with the token
{{- end }}
{{- if and (ne $client.mode "secret") $client.tokenSecret.name }}
client.auth.tokenSecret ({{ $client.tokenSecret.name }}) contradicts client.auth.mode {{ $client.mode }}: set the mode to secret, or take the Secret out
{{- end }}
{{- if and .Values.client.enabled (include "pingpong.client.ownServer" .) }}
{{- if and (eq $server.mode "token") (ne $client.mode "secret") }}
server.auth.mode token refuses the client, which sends no such token with client.auth.mode {{ $client.mode }}: set that to secret, and client.auth.tokenSecret.name
{{- end }}
{{- if and (eq $server.mode "kubernetes") (eq $client.mode "none") }}
server.auth.mode kubernetes refuses the client, which sends no token with client.auth.mode none: set that to serviceAccount
{{- end }}
{{- if and (eq $server.mode "kubernetes") (eq $client.mode "serviceAccount") (ne (include "pingpong.client.audience" .) $server.audience) }}
client.auth.audience ({{ $client.audience }}) is not server.auth.audience ({{ $server.audience }}), so that the server refuses the client: leave client.auth.audience empty
{{- end }}
{{- end }}
{{- $both := and .Values.server.enabled .Values.client.enabled .Values.server.serviceAccount.create .Values.client.serviceAccount.create }}
{{- if and $both (eq (include "pingpong.server.serviceAccount" .) (include "pingpong.client.serviceAccount" .)) }}
server.serviceAccount.name and client.serviceAccount.name are both {{ include "pingpong.server.serviceAccount" . }}, which cannot be made twice: choose two names, or set create to false for one of them
{{- end }}
{{- end }}
