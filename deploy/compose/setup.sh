#!/bin/sh
# Draws the laboratory's secrets and makes its keys, once: docker-compose's service "setup" runs it.
# setup.sh VOLUMES BROKER LAB: folder of the volumes, host:port of Redis, folder of the laboratory.
set -eu
umask 077
volumes=$1 broker=$2 lab=$3

if [ ! -f "$volumes/store/done" ]; then
    draw() { python3 -c 'import secrets; print(secrets.token_hex(32))'; }
    store=$(draw) monitor=$(draw)

    cat >"$volumes/redis-config/redis.conf" <<CONFIG
appendonly yes
appendfsync everysec
save ""
maxmemory 768mb
maxmemory-policy noeviction
protected-mode no
loglevel warning
user default off
user monitor on >$monitor resetkeys ~celeryev.* ~_kombu.binding.celeryev* ~_kombu.binding_permanent.celeryev* ~_kombu.binding_deadlines resetchannels &/0.celeryev/* &/0.celery.pidbox -@all +@connection +psubscribe +punsubscribe +subscribe +unsubscribe +multi +exec +llen +del +sadd +srem +smembers +publish +zadd +zrem +zrangebyscore +time +eval +evalsha +script|load +script|exists
CONFIG
    # Each role gets what it needs of the queue, and a password of its own (docs/brokers/redis.md).
    for role in worker relay client; do
        password=$(draw)
        rule=$(EPHEMERALML_BROKER_URL="redis://$broker/0" ephemeralml queues policy "$role" --pool minilm)
        printf '%s\n' "$rule" | sed "s/PASSWORD/$password/" >>"$volumes/redis-config/redis.conf"
        printf '[broker]\nbroker_url = "redis://%s:%s@%s/0"\n' "$role" "$password" "$broker" \
            >"$volumes/broker-$role/config.toml"
    done
    printf 'redis://monitor:%s@%s/0' "$monitor" "$broker" >"$volumes/flower-config/broker-url"
    printf '%s' "$store" >"$volumes/postgres-config/password"
    printf '*:*:gateway:gateway:%s\n' "$store" >"$volumes/store/pgpass"
    python3 -c 'import base64, secrets; print(base64.b64encode(secrets.token_bytes(32)).decode(), end="")' \
        >"$volumes/store/webhook-master"
    touch "$volumes/store/done"
    echo "secrets drawn"
fi

# A laboratory that was not finished is begun again: nothing uses it before this script has ended.
if [ ! -f "$volumes/client/policy.json" ]; then
    rm -rf "${lab:?}"/* "${volumes:?}"/worker/*
    ephemeralml lab init "$lab"
    # Workers get neither the KMS's keys nor the operator's.
    cp -R "$lab/root" "$lab/policy.json" "$lab/model.eml" "$lab/lab.env" "$volumes/worker/"
    cp "$lab/policy.json" "$volumes/client/.draft"
    mv "$volumes/client/.draft" "$volumes/client/policy.json"
fi
echo "setup is complete"
