#!/bin/sh
# Makes an image of registry 3 with the official image's defaults: its program, built from the release $1 as `go install`
# names it, in the file system of the image registry:2; tagged $2.
set -eu
container=
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"; [ -z "$container" ] || docker rm --force --volumes "$container" >/dev/null' EXIT

GOBIN="$folder" CGO_ENABLED=0 go install "$1"
mkdir -p "$folder/etc/distribution"
cat >"$folder/etc/distribution/config.yml" <<'END'
version: 0.1
log: {level: debug, fields: {service: registry}}
storage: {delete: {enabled: true}, cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000", debug: {addr: ":5001", prometheus: {enabled: true}}}
END
container=$(docker create registry:2)
docker cp "$folder/registry" "$container:/bin/registry"
docker cp "$folder/etc/distribution" "$container:/etc/distribution"
# The label of an assembled registry 2 would be untrue of it.
docker commit --change 'CMD ["/etc/distribution/config.yml"]' --change "LABEL talos-cache.image=\"built from $1\"" \
    "$container" "$2" >/dev/null
