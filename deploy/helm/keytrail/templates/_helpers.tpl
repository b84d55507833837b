{{- define "keytrail.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "keytrail.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "keytrail.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "keytrail.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keytrail.selector" -}}
app.kubernetes.io/name: {{ include "keytrail.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keytrail.labels" -}}
{{ include "keytrail.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "keytrail.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keytrail.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "keytrail.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* ADDRESS:PORT, an IPv6 address in brackets. */ -}}
{{- define "keytrail.socketAddress" -}}
{{- if contains ":" .address -}}
[{{ .address }}]:{{ int .port }}
{{- else -}}
{{ .address }}:{{ int .port }}
{{- end -}}
{{- end -}}

{{- /* Where the kubelet, on the same network, reaches the probes. */ -}}
{{- define "keytrail.probeHost" -}}
{{- if has .Values.metrics.address (list "0.0.0.0" "::") -}}
127.0.0.1
{{- else -}}
{{ .Values.metrics.address }}
{{- end -}}
{{- end -}}
