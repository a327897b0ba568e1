{{- define "keda-kaito-scaler.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "keda-kaito-scaler.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end }}

{{/* Where KEDA looks for the Secrets of a ClusterTriggerAuthentication. */}}
{{- define "keda-kaito-scaler.kedaNamespace" -}}
{{- if not (hasKey .Values "keda") -}}
{{- fail "these values are those of an earlier chart, as `helm upgrade --reuse-values` leaves them: use --reset-then-reuse-values (Helm 3.14 and later), or pass your values file with -f" -}}
{{- end -}}
{{- default (include "keda-kaito-scaler.namespace" .) .Values.keda.namespace -}}
{{- end }}

{{/* These two are the Deployment's selector, which Kubernetes never lets change. */}}
{{- define "keda-kaito-scaler.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keda-kaito-scaler.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "keda-kaito-scaler.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "keda-kaito-scaler.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* "true" for a tag of the earlier scaler (0.1 to 0.6), which does not know this chart's arguments. */}}
{{- define "keda-kaito-scaler.tagIsOfEarlierScaler" -}}
{{- regexMatch "^v?0\\.[0-6]\\.[0-9]+$" (toString .Values.image.tag) -}}
{{- end }}

{{- define "keda-kaito-scaler.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest -}}
@{{ .Values.image.digest }}
{{- else if eq (include "keda-kaito-scaler.tagIsOfEarlierScaler" .) "true" -}}
:{{ hasPrefix "v" .Values.image.tag | ternary "v" "" }}{{ .Chart.AppVersion }}
{{- else -}}
:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "keda-kaito-scaler.imagePullSecrets" -}}
{{- with concat (.Values.image.pullSecrets | default list) (.Values.imagePullSecrets | default list) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Release 0.3.3 called this port healthProbe. */}}
{{- define "keda-kaito-scaler.healthPort" -}}
{{- .Values.ports.healthProbe | default .Values.ports.grpcHealth -}}
{{- end }}

{{/* What tells every subcommand where its Secrets and Services are. */}}
{{- define "keda-kaito-scaler.installationArgs" -}}
- --working-namespace={{ include "keda-kaito-scaler.namespace" . }}
- --keda-namespace={{ include "keda-kaito-scaler.kedaNamespace" . }}
- --grpc-port={{ .Values.ports.grpc }}
- --scaler-service-name=keda-kaito-scaler-svc
- --scaler-client-secret-name=keda-kaito-scaler-client-certs
- --scaler-server-secret-name=keda-kaito-scaler-server-certs
- --scaler-ca-secret-name=keda-kaito-scaler-ca
{{- if ne (include "keda-kaito-scaler.clusterDomain" .) "cluster.local" }}
- --cluster-domain={{ include "keda-kaito-scaler.clusterDomain" . }}
{{- end }}
{{- end }}

{{/* Kept values of an earlier release do not have it. */}}
{{- define "keda-kaito-scaler.clusterDomain" -}}
{{- .Values.clusterDomain | default "cluster.local" -}}
{{- end }}

{{/* The kubelet kills at the end of the grace period. After the delay KEDA's streams end with OK, then the gRPC listener
     and the health listener have 5 s each for what is under way, and 2 s are for the rest. */}}
{{- define "keda-kaito-scaler.checkShutdown" -}}
{{- $delay := .Values.shutdownDelay -}}
{{- $number := regexFind "^[0-9]+" $delay | int -}}
{{- $seconds := hasSuffix "ms" $delay | ternary (div (add $number 999) 1000) $number -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add $seconds 12 | int) -}}
{{- fail (printf "terminationGracePeriodSeconds is %v and must be at least 12 s more than shutdownDelay, which is %s" .Values.terminationGracePeriodSeconds $delay) -}}
{{- end -}}
{{- end }}
