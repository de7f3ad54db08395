#!/bin/sh
# Makes what the services of compose.yaml share, once: the key-encryption key, a certificate authority with the
# certificates of NATS and of the nodes, the credentials for S3, and the bucket. What is there is left alone.
#
#   setup.sh SECRETS S3 OWNER
#
# SECRETS is the folder for keys and certificates, S3 that of the S3 server, OWNER the user and group of the nodes.
# S3_ACCESS_KEY and S3_SECRET_KEY are taken from the environment.
set -eu
umask 077
secrets=$1
s3=$2
owner=$3
mkdir -p "$secrets" "$s3/attributes" "$s3/objects/postrider"
cd "$secrets"

# The first node of a cluster makes the key where there is none. Containers do not share a disk that it could be copied
# on, so it is made here, in the same form.
if [ ! -e key-encryption.key ]; then
    printf 'postrider key-encryption key v1\n%s\n' "$(openssl rand -hex 32)" >key-encryption.new
    mv key-encryption.new key-encryption.key
fi

if [ ! -e ca.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca-key.pem -out ca.new \
        -subj '/CN=postrider compose' -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign'
    mv ca.new ca.pem
fi

# A certificate for a name, for both ends of a connection.
certificate() {
    name=$1
    names=$2
    [ ! -e "$name.pem" ] || return 0
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name-key.pem" -out "$name.csr" -subj "/CN=$name"
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" >"$name.ext"
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -extfile "$name.ext" -out "$name.new"
    rm "$name.csr" "$name.ext"
    mv "$name.new" "$name.pem"
}
certificate nats DNS:nats
certificate node DNS:postrider-1,DNS:postrider-2,DNS:postrider-3
# What mail clients see. Put a real one in its place.
certificate mail DNS:mail.example.test,DNS:localhost

printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$S3_ACCESS_KEY" "$S3_SECRET_KEY" >s3-credentials

# Postrider refuses a key file that others than its owner may read.
chown -R "$owner" .
chmod 0400 ./*
chmod 0755 .
chmod 0444 ./ca.pem ./nats.pem ./node.pem ./mail.pem
