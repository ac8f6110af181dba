#!/usr/bin/env bash
# Generates the passwords and keys of an installation once; existing ones are kept.
#
#     infra/secrets.sh files [DIRECTORY]                         for compose.yaml: .env files, in infra/secrets
#     infra/secrets.sh kubernetes [NAMESPACE] [postgresql|mysql] Secrets and the ConfigMap mp3burst, with $KUBECTL or kubectl
#
# Variables of infra/env.example that are set when this runs are copied; on a cluster, a server whose URL is set
# (DATABASE_URL, MONGO_URI, AMQP_URL) gets no generated password. Compose refuses to start without the file of any of its
# services, so there the servers that nobody uses have passwords, too. Knative's broker also needs RabbitMQ's management API: set
# RABBITMQ_MANAGEMENT_URL if it is not on port 15672 of AMQP_URL's host. Needs openssl.
set -euo pipefail
umask 077

fail() { printf '%s\n' "$*" >&2; exit 1; }
command -v openssl >/dev/null || fail "openssl is needed: install it (Debian, Ubuntu: apt install openssl)."

# KUBECTL may contain arguments.
read -r -a KUBECTL <<<"${KUBECTL:-kubectl}"
kubectl() { command "${KUBECTL[@]}" "$@"; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
sql=postgresql
case "${1-}" in
files) place=${2:-$here/secrets} ;;
kubernetes)
    place=${2:-mp3burst} sql=${3:-postgresql}
    command -v "${KUBECTL[0]}" >/dev/null || fail "kubectl is needed, pointed at the cluster."
    ;;
*) fail "usage: infra/secrets.sh files [DIRECTORY] | kubernetes [NAMESPACE] [postgresql|mysql]" ;;
esac
mode=$1
[ "$sql" = postgresql ] || [ "$sql" = mysql ] || fail "$sql is not supported: choose postgresql or mysql."
[ "$mode" = kubernetes ] || mkdir -p "$place"

# exists NAME: whether the file or object exists; value NAME KEY: reads a value; create NAME: writes $lines, which `entry`
# has filled, completely or not at all.
exists() {
    if [ "$mode" = files ]; then
        [ -e "$place/$1.env" ]
    else
        [ -n "$(kubectl -n "$place" get "$(kind "$1")" "$1" --ignore-not-found -o name)" ]
    fi
}

value() {
    if [ "$mode" = files ]; then
        (unset "$2" && . "$place/$1.env" && printf '%s' "${!2-}")
    else
        kubectl -n "$place" get secret "$1" -o "jsonpath={.data.$2}" | base64 -d
    fi
}

create() { # NAME; its entries are in $lines
    local data=stringData
    if [ "$mode" = files ]; then
        printf '%s\n' "$lines" >"$place/.$1.new"
        mv "$place/.$1.new" "$place/$1.env"
        printf 'made %s\n' "$place/$1.env"
    else
        [ "$(kind "$1")" = secret ] || data=data
        # On stdin: every user of the machine can read a command's arguments.
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

entry() { # KEY VALUE
    if [ "$mode" = files ]; then
        # Compose and the shell agree on values that need no escaping.
        case $2 in *[\'\\]* | *'${'*) fail "$1 has a quote, a backslash or \${ in it, which an .env file cannot represent reliably: choose another value." ;; esac
        printf "%s='%s'\n" "$1" "$2"
    else
        printf '  %s: |-\n' "$1"
        sed 's/^/    /' <<<"$2"
    fi
}

given() { # KEY...: an entry for each variable that is set
    local key
    for key in "$@"; do
        [ -z "${!key-}" ] || entry "$key" "${!key}"
    done
}

random() { openssl rand -hex 24; }

decoded() { printf '%b' "${1//%/\\x}"; }

for_the_broker() { # USER PASSWORD MANAGEMENT_URL PORT, under the names that Knative's broker reads
    entry username "$1"
    entry password "$2"
    entry uri "$3"
    entry port "$4"
}

names_of_queues() { # on a cluster the broker has its own
    [ "$mode" = kubernetes ] || given VIDEO_QUEUE PIECE_QUEUE PIECES_QUEUE MP3_QUEUE HOOK_QUEUE FETCH_QUEUE
}

if [ -z "${AMQP_URL-}" ] && ! exists rabbitmq; then
    password=$(random)
    lines=$(
        entry RABBITMQ_DEFAULT_USER mp3burst
        entry RABBITMQ_DEFAULT_PASS "$password"
        entry AMQP_URL "amqp://mp3burst:$password@rabbitmq:5672/%2F"
        names_of_queues
        [ "$mode" = files ] || for_the_broker mp3burst "$password" "http://rabbitmq.$place:15672" 5672
    )
    create rabbitmq
elif ! exists rabbitmq; then
    url='^amqps?://([^:@/]*):([^@/]*)@([^:@/]+)(:([0-9]+))?(/.*)?$'
    [ "$mode" = files ] || [[ $AMQP_URL =~ $url ]] || fail "AMQP_URL is invalid: write amqp://USER:PASSWORD@HOST[:PORT]."
    lines=$(
        given AMQP_URL
        names_of_queues
        [ "$mode" = files ] || for_the_broker "$(decoded "${BASH_REMATCH[1]}")" "$(decoded "${BASH_REMATCH[2]}")" \
            "${RABBITMQ_MANAGEMENT_URL:-http://${BASH_REMATCH[3]}:15672}" "${BASH_REMATCH[5]:-5672}"
    )
    create rabbitmq
fi

# If the functions already have a server, no password is generated for another.
elsewhere=
if [ -n "${DATABASE_URL-}${MYSQL_HOST-}" ] || exists database-owner || exists database; then
    elsewhere=yes
fi
if { [ -z "$elsewhere" ] || [ "$mode" = files ]; } && ! exists "$sql"; then
    password=$(random) root=$(random)
    if [ "$sql" = postgresql ]; then
        lines=$(
            entry POSTGRES_USER mp3burst
            entry POSTGRES_DB mp3burst
            entry POSTGRES_PASSWORD "$password"
        )
    else
        lines=$(
            entry MYSQL_USER mp3burst
            entry MYSQL_DATABASE mp3burst
            entry MYSQL_PASSWORD "$password"
            entry MYSQL_ROOT_PASSWORD "$root"
        )
    fi
    create "$sql"
fi
# The owner creates the tables and each function's user; only the migrations use it. In older versions all functions used
# the user in `database`.
connection=(DATABASE_URL MYSQL_HOST MYSQL_PORT MYSQL_USER MYSQL_PASSWORD MYSQL_DB)
if ! exists database-owner; then
    if [ -n "${DATABASE_URL-}${MYSQL_HOST-}" ]; then
        lines=$(given "${connection[@]}")
    elif [ "$sql" = mysql ] && exists mysql; then
        password=$(value mysql MYSQL_ROOT_PASSWORD)
        lines=$(entry DATABASE_URL "mysql://root:$password@mysql:3306/mp3burst?charset=utf8mb4")
    elif exists database; then
        lines=$(
            for name in "${connection[@]}"; do
                text=$(value database "$name")
                [ -z "$text" ] || entry "$name" "$text"
            done
        )
    else
        password=$(value postgresql POSTGRES_PASSWORD)
        lines=$(entry DATABASE_URL "postgresql://mp3burst:$password@postgresql:5432/mp3burst")
    fi
    lines+=$'\n'$(entry DATABASE_USERS_KEY "${DATABASE_USERS_KEY:-$(openssl rand -hex 32)}")
    create database-owner
fi

owner() { # reads the owner's variables, once
    local name
    [ -z "${owner_is_known-}" ] || return 0
    for name in "${connection[@]}" DATABASE_USERS_KEY; do
        printf -v "$name" %s "$(value database-owner "$name")"
    done
    owner_is_known=yes
}

connect_as() { # FUNCTION: the entries by which it connects, as connection_of in infra/migrations/rights.py
    local password url='^([a-z0-9+]+://)([^:/@]*(:[^@]*)?@)?([^/?]*/([^/?]+)(\?.*)?)$'
    case $DATABASE_USERS_KEY in
    "" | off) ;;
    *)
        password=$(printf '%s:%s' "$1" "$DATABASE_USERS_KEY" | openssl dgst -sha256 -r)
        password=${password%% *}
        if [ -z "$DATABASE_URL" ]; then
            MYSQL_USER=${MYSQL_DB}_$1 MYSQL_PASSWORD=$password
        elif [[ $DATABASE_URL =~ $url ]]; then
            DATABASE_URL=${BASH_REMATCH[1]}${BASH_REMATCH[5]}_$1:$password@${BASH_REMATCH[4]}
            unset "${connection[@]:1}" # the owner's password may be in them
        else
            fail "DATABASE_URL names no database: write DIALECT://USER:PASSWORD@HOST/NAME."
        fi
        ;;
    esac
    given "${connection[@]}"
}

for function in register login confirm account validate upload status download edit convert encode join fetch notify sweep bury webhooks admin metrics hook; do
    if ! exists "database-$function"; then
        owner
        lines=$(connect_as "$function")
        create "database-$function"
    fi
done

if ! exists log; then
    key=${LOG_KEY-}
    [ -n "$key" ] || ! exists database || key=$(value database LOG_KEY)
    lines=$(entry LOG_KEY "${key:-$(random)}")
    create log
fi

elsewhere=${MONGO_URI-}
! exists media || elsewhere=yes
if { [ -z "$elsewhere" ] || [ "$mode" = files ]; } && ! exists mongodb; then
    password=$(random) root=$(random)
    lines=$(
        entry MONGO_INITDB_ROOT_USERNAME root
        entry MONGO_INITDB_ROOT_PASSWORD "$root"
        entry MONGO_PASSWORD "$password"
    )
    create mongodb
fi
if ! exists media; then
    if [ -n "${MONGO_URI-}" ]; then
        lines=$(given MONGO_URI MONGO_MP3_URI MIN_FREE_BYTES)
    else
        password=$(value mongodb MONGO_PASSWORD)
        lines=$(
            entry MONGO_URI "mongodb://mp3burst:$password@mongodb:27017/videos?authSource=admin"
            entry MONGO_MP3_URI "mongodb://mp3burst:$password@mongodb:27017/mp3s?authSource=admin"
            given MIN_FREE_BYTES
        )
    fi
    create media
fi

if ! exists links; then
    key=${LINK_KEY-}
    [ -n "$key" ] || key=$(openssl rand -hex 32)
    lines=$(entry LINK_KEY "$key")
    create links
fi
if ! exists webhooks; then
    lines=$(entry WEBHOOK_KEY "${WEBHOOK_KEY:-$(random)}")
    create webhooks
fi
if ! exists token-signing; then
    key=${TOKEN_PRIVATE_KEY-}
    [ -n "$key" ] || key=$(openssl genpkey -algorithm ed25519)
    lines=$(
        entry TOKEN_PRIVATE_KEY "$key"
        given OIDC_CLIENT_SECRET OIDC_PROVIDERS PROXY_LOGIN_SECRET
    )
    create token-signing
fi
if ! exists mail; then
    if [ -n "${SENDGRID_API_KEY-}${SMTP_HOST-}${GMAIL_ADDRESS-}" ]; then
        lines=$(
            given MAIL_FROM SENDGRID_API_KEY SENDGRID_URL SMTP_HOST SMTP_PORT SMTP_SECURITY SMTP_USER SMTP_PASSWORD \
                GMAIL_ADDRESS GMAIL_PASSWORD
        )
    else
        # The mail catcher of compose.yaml; on a cluster without one, mails wait until there is one.
        lines=$(
            from=${MAIL_FROM-}
            . "$here/mail/catcher.env"
            MAIL_FROM=${from:-$MAIL_FROM}
            given MAIL_FROM SMTP_HOST SMTP_PORT SMTP_SECURITY
        )
    fi
    create mail
fi
if ! exists mp3burst; then
    public=${TOKEN_PUBLIC_KEYS-}
    [ -n "$public" ] || public=$(value token-signing TOKEN_PRIVATE_KEY | openssl pkey -pubout)
    # All workers share one server's CPUs, and each further piece adds work; the minimum is 2.
    cores=$(getconf _NPROCESSORS_ONLN)
    [ "$mode" = kubernetes ] || FANOUT_PIECES=${FANOUT_PIECES:-$((cores < 2 ? 2 : cores > 256 ? 256 : cores))}
    lines=$(
        entry PUBLIC_URL "${PUBLIC_URL:-http://localhost:8080}"
        entry TOKEN_PUBLIC_KEYS "$public"
        given LINK_DAYS KEEP_DAYS MAX_UPLOAD_BYTES UPLOAD_HOURS UPLOAD_ROLE QUOTA_JOBS QUOTA_BYTES MAX_SECONDS PRESETS TOKEN_HOURS CONFIRM_EMAIL REGISTRATIONS_PER_HOUR \
            OIDC_ISSUER OIDC_CLIENT_ID OIDC_CREATE_USERS PROXY_LOGIN_HEADER PROXY_LOGIN_NETWORKS PROXY_LOGIN_CREATE_USERS \
            API_KEYS TRUSTED_PROXIES WEBHOOK_PORTS WEBHOOK_NETWORKS WEBHOOK_NAT64 WEBHOOK_HANDSHAKE FETCH_URLS FETCH_NETWORKS \
            FANOUT_SECONDS FANOUT_PIECES ENCODERS SANDBOX
    )
    create mp3burst
fi
