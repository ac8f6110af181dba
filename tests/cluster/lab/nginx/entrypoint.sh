#!/bin/sh
# Fills in each template with the variables that are set, as nginx's image does.
set -eu
if [ -n "${NGINX_ENTRYPOINT_LOCAL_RESOLVERS-}" ]; then
    NGINX_LOCAL_RESOLVERS=$(awk '$1 == "nameserver" { printf "%s%s", sep, $2; sep = " " }' /etc/resolv.conf)
    export NGINX_LOCAL_RESOLVERS
fi
defined=$(env | sed 's/^\([A-Z_0-9]*\)=.*/${\1}/' | tr '\n' ' ')
for template in /etc/nginx/templates/*.template; do
    name=${template##*/}
    envsubst "$defined" <"$template" >"${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}/${name%.template}"
done
exec "$@"
