#!/usr/bin/env bash
# Makes the passwords and keys of an installation once; what is there already is kept.
#
#     infra/secrets.sh files [DIRECTORY]                         for compose.yaml: one .env file each, in infra/secrets
#     infra/secrets.sh kubernetes [NAMESPACE] [postgresql|mysql] Secrets, and the ConfigMap mp3burst, by $KUBECTL or kubectl
#
# A variable of infra/env.example that is set when this runs goes in as it is; a server whose URL is set (DATABASE_URL,
# MONGO_URI, AMQP_URL) gets no password of its own. Knative's broker also needs RabbitMQ's management: where that is not on
# port 15672 of AMQP_URL's host, RABBITMQ_MANAGEMENT_URL says so. Needs openssl.
set -euo pipefail
umask 077

fail() { printf '%s\n' "$*" >&2; exit 1; }
command -v openssl >/dev/null || fail "openssl is needed: install it (Debian, Ubuntu: apt install openssl)."

# A command may have arguments of its own.
read -r -a KUBECTL <<<"${KUBECTL:-kubectl}"
kubectl() { command "${KUBECTL[@]}" "$@"; }

sql=postgresql
case "${1-}" in
files) place=${2:-$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/secrets} ;;
kubernetes)
    place=${2:-mp3burst} sql=${3:-postgresql}
    command -v "${KUBECTL[0]}" >/dev/null || fail "kubectl is needed, pointed at the cluster."
    ;;
*) fail "usage: infra/secrets.sh files [DIRECTORY] | kubernetes [NAMESPACE] [postgresql|mysql]" ;;
esac
mode=$1
[ "$sql" = postgresql ] || [ "$sql" = mysql ] || fail "$sql is no SQL server that this knows: postgresql or mysql."
[ "$mode" = kubernetes ] || mkdir -p "$place"

# What is known of NAME is looked up (known NAME), read (value NAME KEY) and written (make NAME; by `is` into lines, whole or not at all).
known() {
    if [ "$mode" = files ]; then
        [ -e "$place/$1.env" ]
    else
        [ -n "$(kubectl -n "$place" get "$(kind "$1")" "$1" --ignore-not-found -o name)" ]
    fi
}

value() {
    if [ "$mode" = files ]; then
        (unset "$2" && . "$place/$1.env" && printf '%s' "${!2}")
    else
        kubectl -n "$place" get secret "$1" -o "jsonpath={.data.$2}" | base64 -d
    fi
}

make() { # NAME: what `lines` holds
    local data=stringData
    if [ "$mode" = files ]; then
        printf '%s\n' "$lines" >"$place/.$1.new"
        mv "$place/.$1.new" "$place/$1.env"
        printf 'made %s\n' "$place/$1.env"
    else
        [ "$(kind "$1")" = secret ] || data=data
        # On stdin: arguments of a command can be read by everybody on the machine.
        kubectl -n "$place" create -f - <<YAML
apiVersion: v1
kind: $([ $data = data ] && echo ConfigMap || echo Secret)
metadata:
  name: $1
  labels:
    app.kubernetes.io/part-of: mp3burst
$data:
$lines
YAML
    fi
}

kind() { [ "$1" = mp3burst ] && echo configmap || echo secret; }

is() { # KEY VALUE
    if [ "$mode" = files ]; then
        # Compose and the shell read the same where nothing has to be escaped.
        case $2 in *[\'\\]* | *'${'*) fail "$1 has a quote, a backslash or \${ in it, which an .env file cannot hold everywhere." ;; esac
        printf "%s='%s'\n" "$1" "$2"
    else
        printf '  %s: |-\n' "$1"
        sed 's/^/    /' <<<"$2"
    fi
}

given() { # KEY...: those that are set
    local key
    for key in "$@"; do
        [ -z "${!key-}" ] || is "$key" "${!key}"
    done
}

random() { openssl rand -hex 24; }

decoded() { printf '%b' "${1//%/\\x}"; }

for_the_broker() { # USER PASSWORD MANAGEMENT PORT, by the names for which Knative's broker looks
    is username "$1"
    is password "$2"
    is uri "$3"
    is port "$4"
}

if [ -z "${AMQP_URL-}" ] && ! known rabbitmq; then
    password=$(random)
    lines=$(
        is RABBITMQ_DEFAULT_USER mp3burst
        is RABBITMQ_DEFAULT_PASS "$password"
        is AMQP_URL "amqp://mp3burst:$password@rabbitmq:5672/%2F"
        [ "$mode" = files ] || for_the_broker mp3burst "$password" "http://rabbitmq.$place:15672" 5672
    )
    make rabbitmq
elif ! known rabbitmq; then
    url='^amqps?://([^:@/]*):([^@/]*)@([^:@/]+)(:([0-9]+))?(/.*)?$'
    [ "$mode" = files ] || [[ $AMQP_URL =~ $url ]] || fail "AMQP_URL has to be amqp://USER:PASSWORD@HOST[:PORT]."
    lines=$(
        given AMQP_URL
        [ "$mode" = files ] || for_the_broker "$(decoded "${BASH_REMATCH[1]}")" "$(decoded "${BASH_REMATCH[2]}")" \
            "${RABBITMQ_MANAGEMENT_URL:-http://${BASH_REMATCH[3]}:15672}" "${BASH_REMATCH[5]:-5672}"
    )
    make rabbitmq
fi

# Where the functions know a server already, it is that one: nothing is made for another.
if [ -z "${DATABASE_URL-}${MYSQL_HOST-}" ] && ! known database && ! known "$sql"; then
    password=$(random) root=$(random)
    if [ "$sql" = postgresql ]; then
        lines=$(is POSTGRES_USER mp3burst; is POSTGRES_DB mp3burst; is POSTGRES_PASSWORD "$password")
    else
        lines=$(
            is MYSQL_USER mp3burst; is MYSQL_DATABASE mp3burst; is MYSQL_PASSWORD "$password"
            is MYSQL_ROOT_PASSWORD "$root"
        )
    fi
    make "$sql"
fi
if ! known database; then
    if [ -n "${DATABASE_URL-}${MYSQL_HOST-}" ]; then
        lines=$(given DATABASE_URL MYSQL_HOST MYSQL_PORT MYSQL_USER MYSQL_PASSWORD MYSQL_DB)
    elif [ "$sql" = postgresql ]; then
        password=$(value postgresql POSTGRES_PASSWORD)
        lines=$(is DATABASE_URL "postgresql://mp3burst:$password@postgresql:5432/mp3burst")
    else
        password=$(value mysql MYSQL_PASSWORD)
        lines=$(is DATABASE_URL "mysql://mp3burst:$password@mysql:3306/mp3burst?charset=utf8mb4")
    fi
    make database
fi

if [ -z "${MONGO_URI-}" ] && ! known media && ! known mongodb; then
    password=$(random) root=$(random)
    lines=$(
        is MONGO_INITDB_ROOT_USERNAME root; is MONGO_INITDB_ROOT_PASSWORD "$root"; is MONGO_PASSWORD "$password"
    )
    make mongodb
fi
if ! known media; then
    if [ -n "${MONGO_URI-}" ]; then
        lines=$(given MONGO_URI MONGO_MP3_URI)
    else
        password=$(value mongodb MONGO_PASSWORD)
        lines=$(
            is MONGO_URI "mongodb://mp3burst:$password@mongodb:27017/videos?authSource=admin"
            is MONGO_MP3_URI "mongodb://mp3burst:$password@mongodb:27017/mp3s?authSource=admin"
        )
    fi
    make media
fi

if ! known links; then
    key=${LINK_KEY-}
    [ -n "$key" ] || key=$(openssl rand -hex 32)
    lines=$(is LINK_KEY "$key")
    make links
fi
if ! known token-signing; then
    key=${TOKEN_PRIVATE_KEY-}
    [ -n "$key" ] || key=$(openssl genpkey -algorithm ed25519)
    lines=$(is TOKEN_PRIVATE_KEY "$key")
    make token-signing
fi
if ! known mail; then
    if [ -n "${SENDGRID_API_KEY-}${SMTP_HOST-}${GMAIL_ADDRESS-}" ]; then
        lines=$(
            given MAIL_FROM SENDGRID_API_KEY SENDGRID_URL SMTP_HOST SMTP_PORT SMTP_SECURITY SMTP_USER SMTP_PASSWORD \
                GMAIL_ADDRESS GMAIL_PASSWORD
        )
    else
        # The catcher of compose.yaml; a cluster has none, and mails wait until there is one.
        lines=$(
            is MAIL_FROM "${MAIL_FROM:-mp3burst <mp3burst@localhost>}"
            is SMTP_HOST mail; is SMTP_PORT 1025; is SMTP_SECURITY none
        )
    fi
    make mail
fi
if ! known mp3burst; then
    public=${TOKEN_PUBLIC_KEYS-}
    [ -n "$public" ] || public=$(value token-signing TOKEN_PRIVATE_KEY | openssl pkey -pubout)
    # Workers of one server share its cores, and every piece more costs more decoding; the setting is 2 at least.
    cores=$(getconf _NPROCESSORS_ONLN)
    [ "$mode" = kubernetes ] || FANOUT_PIECES=${FANOUT_PIECES:-$((cores < 2 ? 2 : cores > 128 ? 128 : cores))}
    lines=$(
        is PUBLIC_URL "${PUBLIC_URL:-http://localhost:8080}"
        is TOKEN_PUBLIC_KEYS "$public"
        given LINK_DAYS KEEP_DAYS MAX_UPLOAD_BYTES UPLOAD_HOURS UPLOAD_ROLE QUOTA_JOBS QUOTA_BYTES TOKEN_HOURS TRUSTED_PROXIES FANOUT_SECONDS FANOUT_PIECES
    )
    make mp3burst
fi
