{{/*
Values that contradict each other, beyond what values.schema.json can tell. Each definition gives a
line a mistake: what is wrong, and what to change.
*/}}

{{- define "pingpong.check.release" -}}
{{- $fullname := include "pingpong.fullname" . }}
{{- if not (regexMatch "^[a-z]" $fullname) }}
the release's name makes Services called {{ $fullname }}-…, which must begin with a letter: choose another name for the release, or set fullnameOverride
{{- end }}
{{- if not (or .Values.server.enabled .Values.client.enabled) }}
server.enabled and client.enabled are both false, which leaves nothing to install: enable one
{{- end }}
{{- /* A helm that was built without a version says 1.20.0 where it asks no cluster. */}}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- if and (semverCompare "<1.30.0-0" $version) (ne $version "v1.20.0") }}
the cluster has Kubernetes {{ $version }}: this chart needs 1.30 or newer, whose kubelets can let a pod sleep before it ends
{{- end }}
{{- range $name, $value := .Values.commonLabels }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (eq "helm.sh/chart" $name) }}
commonLabels has {{ $name }}, which the chart sets itself: take it out
{{- end }}
{{- end }}
{{- end }}

{{- define "pingpong.check.server" -}}
{{- $server := .Values.server }}
{{- if $server.enabled }}
{{- $drain := $server.drain }}
{{- $needed := add $drain.preStopSeconds $drain.timeoutSeconds }}
{{- if le (int $drain.gracePeriodSeconds) (int $needed) }}
server.drain.gracePeriodSeconds ({{ int $drain.gracePeriodSeconds }}) must be longer than preStopSeconds and timeoutSeconds together ({{ int $drain.preStopSeconds }} + {{ int $drain.timeoutSeconds }}), or pods are killed before they have drained: set it to {{ add $needed 5 }}, or shorten the others
{{- end }}
{{- if $server.autoscaling.enabled }}
{{- if eq $server.kind "DaemonSet" }}
server.autoscaling.enabled contradicts server.kind DaemonSet, which has a pod on every node: disable it, or set server.kind to Deployment
{{- else if not (kindIs "invalid" $server.replicas) }}
server.replicas ({{ int $server.replicas }}) contradicts server.autoscaling.enabled, which sets the number of pods: leave server.replicas out (null), or disable autoscaling
{{- end }}
{{- if gt (int $server.autoscaling.minReplicas) (int $server.autoscaling.maxReplicas) }}
server.autoscaling.minReplicas ({{ int $server.autoscaling.minReplicas }}) is above maxReplicas ({{ int $server.autoscaling.maxReplicas }}): lower it, or raise maxReplicas
{{- end }}
{{- if not (or (dig "requests" "cpu" "" $server.resources) (dig "limits" "cpu" "" $server.resources)) }}
server.autoscaling.enabled goes by the share of the requested CPU time, and none is requested: set server.resources.requests.cpu
{{- end }}
{{- end }}
{{- include "pingpong.check.disruption" $server }}
{{- end }}
{{- end }}

{{/* Takes the values `server`. */}}
{{- define "pingpong.check.disruption" -}}
{{- $budget := .podDisruptionBudget }}
{{- if and $budget.enabled (eq .kind "Deployment") }}
{{- $replicas := kindIs "invalid" .replicas | ternary 1 .replicas | int }}
{{- if .autoscaling.enabled }}
{{- $replicas = int .autoscaling.minReplicas }}
{{- end }}
{{- $hasMin := not (kindIs "invalid" $budget.minAvailable) }}
{{- $hasMax := not (kindIs "invalid" $budget.maxUnavailable) }}
{{- if and $hasMin $hasMax }}
server.podDisruptionBudget has minAvailable and maxUnavailable, of which Kubernetes takes one: leave one out (null)
{{- else if $hasMax }}
{{- if has (include "pingpong.text" $budget.maxUnavailable) (list "0" "0%") }}
server.podDisruptionBudget.maxUnavailable of {{ include "pingpong.text" $budget.maxUnavailable }} lets no pod be evicted, so that a node's drain waits for ever: set it to 1 or more, or disable the budget
{{- end }}
{{- else if $hasMin }}
{{- $min := include "pingpong.text" $budget.minAvailable }}
{{- $share := hasSuffix "%" $min | ternary (divf (mulf (trimSuffix "%" $min | float64) $replicas) 100 | ceil) (float64 $min) }}
{{- if and (gt $replicas 0) (ge $share (float64 $replicas)) }}
server.podDisruptionBudget.minAvailable of {{ $min }} lets no pod of {{ $replicas }} be evicted, so that a node's drain waits for ever: lower it, have more pods, or use maxUnavailable
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pingpong.check.certificate" -}}
{{- $tls := .Values.server.tls }}
{{- if .Values.server.enabled }}
{{- if eq $tls.mode "made" }}
server.tls.mode made is now called selfSigned: set it to that, or to authority, the default, with which the client verifies the server
{{- end }}
{{- if and (has $tls.mode (list "authority" "selfSigned")) $tls.secretName }}
server.tls.secretName ({{ $tls.secretName }}) contradicts server.tls.mode {{ $tls.mode }}, whose certificate is not from there: set the mode to secret, or take the name out
{{- end }}
{{- if and (eq $tls.mode "secret") (not $tls.secretName) }}
server.tls.mode secret needs server.tls.secretName, the Secret with tls.crt and tls.key
{{- end }}
{{- if eq $tls.mode "certManager" }}
{{- if not $tls.certManager.issuerRef.name }}
server.tls.mode certManager needs server.tls.certManager.issuerRef.name, the Issuer or ClusterIssuer that signs
{{- end }}
{{- $hours := trimSuffix "h" ($tls.certManager.duration | default "2160h") | int }}
{{- $before := trimSuffix "h" $tls.certManager.renewBefore | int }}
{{- if ge $before $hours }}
server.tls.certManager.renewBefore ({{ $before }}h) must be less than the certificate's duration ({{ $hours }}h), or it is renewed all the time: lower it
{{- end }}
{{- else }}
{{- if $tls.certManager.issuerRef.name }}
server.tls.certManager.issuerRef contradicts server.tls.mode {{ $tls.mode }}: set the mode to certManager, or take the issuer out
{{- end }}
{{- if and (has $tls.mode (list "secret" "selfSigned")) (or $tls.extraDnsNames $tls.extraIpAddresses) }}
server.tls.extraDnsNames and extraIpAddresses are for a certificate that the chart makes or asks for, and contradict server.tls.mode {{ $tls.mode }}: set the mode to authority or certManager, or take them out
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pingpong.check.services" -}}
{{- if .Values.server.enabled }}
{{- $service := .Values.server.externalService }}
{{- $type := $service.type }}
{{- if eq $type "ClusterIP" }}
{{- if or $service.nodePort $service.adminPort.nodePort }}
server.externalService.nodePort contradicts type ClusterIP, which has no port on nodes: set the type to NodePort, or take the port out
{{- end }}
{{- if $service.externalTrafficPolicy }}
server.externalService.externalTrafficPolicy contradicts type ClusterIP, which has no traffic from outside: set the type to NodePort or LoadBalancer, or take it out
{{- end }}
{{- end }}
{{- if ne $type "LoadBalancer" }}
{{- if or $service.loadBalancerClass $service.loadBalancerSourceRanges }}
server.externalService.loadBalancerClass and loadBalancerSourceRanges contradict type {{ $type }}: set the type to LoadBalancer, or take them out
{{- end }}
{{- end }}
{{- if and $service.healthCheckNodePort (not (and (eq $type "LoadBalancer") (eq $service.externalTrafficPolicy "Local"))) }}
server.externalService.healthCheckNodePort is only for type LoadBalancer with externalTrafficPolicy Local: set both, or take it out
{{- end }}
{{- if and $service.healthCheckNodePort (eq (int $service.healthCheckNodePort) (int ($service.adminPort.nodePort | default 0))) }}
server.externalService.healthCheckNodePort and adminPort.nodePort are both {{ int $service.healthCheckNodePort }}, and both TCP: choose two ports
{{- end }}
{{- if and $service.adminPort.nodePort (not $service.adminPort.enabled) }}
server.externalService.adminPort.nodePort is set, but adminPort.enabled is false: enable it, or take the port out
{{- end }}
{{- range $name, $families := dict "service" .Values.server.service "externalService" $service }}
{{- if and (gt (len $families.ipFamilies) 1) (not (has $families.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack"))) }}
server.{{ $name }}.ipFamilies names two, which a Service of {{ $families.ipFamilyPolicy | default "SingleStack" }} doesn't have: set server.{{ $name }}.ipFamilyPolicy to PreferDualStack or RequireDualStack, or name one
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pingpong.check.client" -}}
{{- $client := .Values.client }}
{{- if hasKey $client "servers" }}
client.servers is now called client.targets, and what client.targets was is client.settings.all (true: a target for each address): set those
{{- end }}
{{- if $client.enabled }}
{{- if not (or .Values.server.enabled $client.targets) }}
client.enabled has nothing to ping: enable the server, or say in client.targets which ones
{{- end }}
{{- if and $client.targets (eq $client.discovery "endpointslice") }}
client.discovery endpointslice is for this release's server and contradicts client.targets: write endpointslice://namespace/service there, and leave client.discovery at dns
{{- end }}
{{- range $client.targets }}
{{- if not (include "pingpong.isSource" .) }}
client.targets has {{ . }}, which is none of https://host[:port][/path], host[:port], srv://_service._udp.name and endpointslice://namespace/service[:port]: correct it
{{- end }}
{{- end }}
{{- $min := $client.settings.backoffMin | default 0.1 | float64 }}
{{- $max := $client.settings.backoffMax | default 10 | float64 }}
{{- if gt $min $max }}
client.settings.backoffMin ({{ $min }}) is above backoffMax ({{ $max }}): lower it, or raise backoffMax
{{- end }}
{{- $last := 0.0 }}
{{- range $client.settings.rttBuckets }}
{{- if le (float64 .) $last }}
client.settings.rttBuckets has {{ . }} after {{ $last }}: put them in rising order
{{- end }}
{{- $last = float64 . }}
{{- end }}
{{- end }}
{{- if and .Values.test.enabled (ge (mulf .Values.test.count 0.2) (float64 .Values.test.deadlineSeconds)) }}
test.deadlineSeconds ({{ int .Values.test.deadlineSeconds }}) is too short for test.count ({{ int .Values.test.count }}), which are five a second: raise it, or send fewer
{{- end }}
{{- end }}

{{/* Not empty where a text is what `pingpong probe` takes. */}}
{{- define "pingpong.isSource" -}}
{{- $label := "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?" }}
{{- $host := `([A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])` }}
{{- $port := "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?" }}
{{- $url := printf "(https://)?%s%s" $host $port }}
{{- $srv := `srv://_[A-Za-z0-9-]+\._udp\.[A-Za-z0-9_.-]+` }}
{{- $slice := printf "endpointslice://%s/%s(:[a-z0-9-]{1,15})?" $label $label }}
{{- if regexMatch (printf "^(%s|%s|%s)(/.*)?$" $url $srv $slice) . }}true{{ end }}
{{- end }}
