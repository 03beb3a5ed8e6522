{{/* The chart's name, or what stands for it. */}}
{{- define "outpost-migrate-redis.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The full name of the release's objects. At most 53 characters, so that what is appended ("-metrics") still is a
Service's name of 63.
*/}}
{{- define "outpost-migrate-redis.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The name of what the release makes outside its namespace. Releases of one name in two namespaces must not meet there.
*/}}
{{- define "outpost-migrate-redis.outsideName" -}}
{{- printf "%s-%s" (include "outpost-migrate-redis.fullname" .) .Release.Namespace }}
{{- end }}

{{/* Labels by which the operator's pods are selected: fixed for a release's life. */}}
{{- define "outpost-migrate-redis.selectorLabels" -}}
app.kubernetes.io/name: {{ include "outpost-migrate-redis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/*
Labels of an object. Called with a list: the root context, the component (may be empty), and labels of the user's.
Ours win: a user's label of the same key would be no valid YAML beside it, or would change what selectors find.
*/}}
{{- define "outpost-migrate-redis.labelsFor" -}}
{{- $root := index . 0 }}
{{- $labels := dict
  "app.kubernetes.io/name" (include "outpost-migrate-redis.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "outpost"
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
}}
{{- with index . 1 }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end }}
{{- toYaml (merge $labels (index . 2) $root.Values.commonLabels) }}
{{- end }}

{{/* Labels of the operator's objects. */}}
{{- define "outpost-migrate-redis.labels" -}}
{{- include "outpost-migrate-redis.labelsFor" (list . "operator" dict) }}
{{- end }}

{{- define "outpost-migrate-redis.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "outpost-migrate-redis.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The image: a digest alone says which, a tag only without one. */}}
{{- define "outpost-migrate-redis.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* "true" if resources of all namespaces are served, else nothing. */}}
{{- define "outpost-migrate-redis.watchesAll" -}}
{{- if has "*" .Values.watchNamespaces }}true{{ end }}
{{- end }}

{{/* What the operator may do: used by each Role, or by the ClusterRole. */}}
{{- define "outpost-migrate-redis.rules" -}}
- apiGroups: [migrate.outpost.dev]
  resources: [redismigrations]
  verbs: [get, list, watch]
- apiGroups: [migrate.outpost.dev]
  resources: [redismigrations/status]
  verbs: [update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Credentials that a RedisMigration names: read one by one, never listed or watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
