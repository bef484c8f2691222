{{- /* Metadata of every definition. Uninstalling the chart keeps them: with a definition go all resources of its kind. */ -}}
{{- define "tandem-crds.metadata" -}}
annotations:
  helm.sh/resource-policy: keep
  {{- with .Values.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  app.kubernetes.io/name: tandem-crds
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/part-of: tandem
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
