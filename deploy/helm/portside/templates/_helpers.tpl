{{/* The name of the chart. */}}
{{- define "portside.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects, those of the whole cluster included: two releases do not meet. */}}
{{- define "portside.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "portside.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "portside.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What does not change while a release lives: a selector cannot. */}}
{{- define "portside.selectorLabels" -}}
app.kubernetes.io/name: {{ include "portside.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of every object. The first of those that have a label gives its value: no value of a user moves a selector. */}}
{{- define "portside.labels" -}}
{{- $ours := dict
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml (merge (include "portside.selectorLabels" . | fromYaml) $ours .Values.commonLabels) }}
{{- end }}

{{/* Of the pods. */}}
{{- define "portside.podLabels" -}}
{{- toYaml (merge (include "portside.selectorLabels" . | fromYaml) .Values.podLabels .Values.commonLabels) }}
{{- end }}

{{- define "portside.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "portside.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: which one, if serviceAccount.create is false?" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "portside.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* An address with its port, as flags take it: IPv6 in brackets. */}}
{{- define "portside.at" -}}
{{- if contains ":" .address }}
{{- printf "[%s]:%d" .address (int .port) }}
{{- else }}
{{- printf "%s:%d" .address (int .port) }}
{{- end }}
{{- end }}

{{/* Whether an address is reached by no other node. */}}
{{- define "portside.loopback" -}}
{{- if or (hasPrefix "127." .) (eq "::1" .) }}yes{{ end }}
{{- end }}

{{/* Where the kubelet asks: by itself it asks the address of the node. */}}
{{- define "portside.probe" -}}
{{- if not (has .address (list "0.0.0.0" "::")) -}}
host: {{ .address | quote }}
{{ end -}}
path: {{ .path }}
port: healthz
{{- end }}

{{/* Of the controller's pods: the DaemonSet's selector does not select them. */}}
{{- define "portside.controllerSelectorLabels" -}}
app.kubernetes.io/name: {{ include "portside.name" . }}-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portside.controllerLabels" -}}
{{- $ours := dict
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml (merge (include "portside.controllerSelectorLabels" . | fromYaml) $ours .Values.commonLabels) }}
{{- end }}
