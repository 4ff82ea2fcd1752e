#!/usr/bin/env bash
# Plain curl: one answer, one stream, one refusal. The environment is explained in stage.py.
set -euo pipefail
model=${TOLLGATE_MODEL:-demo-chat}
body="{\"model\":\"$model\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello to the gate.\"}]"
ask() { # key, more body → the answer, then its status on a line of its own
  curl --silent --show-error --no-buffer --max-time 20 --write-out '\n%{http_code}\n' \
    "$TOLLGATE_URL/v1/chat/completions" -H "Authorization: Bearer $1" \
    -H 'Content-Type: application/json' -d "$body$2"
}
said() { grep -q -- "$2" <<<"$1" || { echo "expected $2 in: $1" >&2; exit 1; }; }

answer=$(ask "$TOLLGATE_KEY" '}')
said "$answer" '^200$'
said "$answer" '"content"'
answer=$(ask "$TOLLGATE_KEY" ',"stream":true}')
said "$answer" '^data: \[DONE\]'
answer=$(ask "pe-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" '}')
said "$answer" '^401$'
said "$answer" 'invalid_api_key'
answer=$(ask "$TOLLGATE_USED_UP_KEY" '}')
said "$answer" '^429$'
said "$answer" 'insufficient_quota'
# Refused while it still sends: the refusal is read, and the transfer is no error.
long=$(mktemp)
trap 'rm -f "$long"' EXIT
{ printf '%s' "${body%\"\}\]}"; head -c 9000000 /dev/zero | tr '\0' x; printf '"}]}'; } >"$long"
for key in "$TOLLGATE_USED_UP_KEY:^429$" "pe-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:^401$"; do
  answer=$(curl --silent --show-error --max-time 20 --write-out '\n%{http_code}\n' \
    "$TOLLGATE_URL/v1/chat/completions" -H "Authorization: Bearer ${key%%:*}" \
    -H 'Content-Type: application/json' --data-binary "@$long")
  said "$answer" "${key#*:}"
done
echo "curl ok"
