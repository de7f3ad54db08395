{{/* The configuration of a pool. Takes a dict of `root` and `roles`. */}}
{{- define "postrider.config" -}}
{{- $values := .root.Values -}}
hostname = {{ required "hostname is needed" $values.hostname | quote }}
data = "/var/lib/postrider"
key_file = "/run/postrider/key/key-encryption.key"
shutdown_seconds = {{ int $values.shutdownSeconds }}
roles = {{ .roles | toJson }}

[[certificates]]
certificate = "/run/postrider/tls/tls.crt"
key = "/run/postrider/tls/tls.key"

{{- if has "smtp-in" .roles }}

[[listeners]]
service = "smtp"
address = { tcp = "0.0.0.0:2525" }
[[listeners]]
service = "submission"
address = { tcp = "0.0.0.0:2587" }
[[listeners]]
service = "submissions"
address = { tcp = "0.0.0.0:2465" }
{{- end }}
{{- if has "imap" .roles }}

[[listeners]]
service = "imap"
address = { tcp = "0.0.0.0:2143" }
[[listeners]]
service = "imaps"
address = { tcp = "0.0.0.0:2993" }
{{- end }}

# For probes and Prometheus, and for commands inside the pod.
[[listeners]]
service = "admin"
address = { tcp = "0.0.0.0:8443" }
[[listeners]]
service = "admin"
address = { unix = "admin.sock" }

[log]
format = "json"
{{- with $values.postmaster }}

[directory]
postmaster = {{ . | quote }}
{{- end }}

# The node is called what its pod is called.
[cluster]
{{- with $values.nats }}
{{- if .servers }}

[cluster.nats]
servers = {{ .servers | toJson }}
ca_file = "/run/postrider/nats/ca.crt"
certificate_file = "/run/postrider/nats/tls.crt"
key_file = "/run/postrider/nats/tls.key"
{{- end }}
{{- end }}
{{- with $values.cql }}

[cql]
nodes = {{ required "cql.nodes is needed" .nodes | toJson }}
keyspace = {{ .keyspace | quote }}
datacentre = {{ .datacentre | quote }}
replication = {{ int .replication }}
schema = {{ .schema | quote }}
{{- if .user }}
user = {{ .user | quote }}
password_file = "/run/postrider/cql/password"
{{- end }}
{{- if .caSecret.name }}
ca_file = "/run/postrider/cql-ca/ca.crt"
{{- end }}
{{- end }}
{{- with $values.s3 }}

[s3]
{{- with .endpoint }}
endpoint = {{ . | quote }}
{{- end }}
region = {{ .region | quote }}
bucket = {{ required "s3.bucket is needed" .bucket | quote }}
prefix = {{ .prefix | quote }}
path_style = {{ .pathStyle }}
{{- if .credentialsSecret.name }}
credentials_file = "/run/postrider/s3/credentials"
{{- end }}
{{- end }}
waiting_folder = "/var/lib/postrider/waiting"
cache_folder = "/var/lib/postrider/cache"
cache_bytes_max = {{ mul (int64 $values.cache.gibibytes) 1073741824 }}
{{- with $values.extraConfig }}

{{ . | trim }}
{{- end }}
{{- end -}}
