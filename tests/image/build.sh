#!/bin/bash
# Builds a Docker image with PostgreSQL 15, or with --python one with Python, from Debian's own packages, where no image
# registry can be reached.
# Usage: tests/image/build.sh [--force] [--python] [TAG]    Nothing is done if TAG is there, unless forced.
#
# Needs root, debootstrap and a Docker engine. The packages come from the mirror that this machine's apt is set to.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm

force=false tag=journal-test-postgres:15 packages=postgresql-15 files=(Dockerfile entrypoint)
for word in "$@"; do
  case $word in
    --force) force=true ;;
    --python) tag=journal-test-python:3.11 packages=ca-certificates,python3,python3-venv files=(Dockerfile.python) ;;
    -*) echo "usage: $0 [--force] [--python] [TAG]" >&2; exit 2 ;;
    *) tag=$word ;;
  esac
done

# The first mirror that serves the suite, in either of apt's two formats; nothing if there is none.
mirror() {
  local sources=() uri
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [[ -r $file ]] && sources+=("$file")
  done
  [[ ${#sources[@]} -gt 0 ]] || return 0
  uri=$(awk -v suite="$suite" '
    function stanza() { if (uri && enabled && suites ~ " " suite " ") print uri; uri = suites = ""; enabled = 1 }
    FNR == 1 || !NF           { stanza() }
    tolower($1) == "enabled:" { enabled = tolower($2) != "no" }
    tolower($1) == "uris:"    { uri = $2 }
    tolower($1) == "suites:"  { $1 = ""; suites = $0 " " }
    $1 == "deb"               { sub(/\[[^]]*\]/, ""); if ($3 == suite) print $2 }
    END                       { stanza() }' "${sources[@]}" | sed -n 1p)
  if [[ $uri == mirror+file:* ]]; then # as on Debian's cloud images
    uri=$(awk 'NF && !/^#/ { print $1; exit }' "${uri#mirror+file:}")
  fi
  echo "$uri"
}

if ! $force && docker image inspect "$tag" >/dev/null 2>&1; then
  echo "$tag is there"
  exit
fi
if [[ $(id -u) -ne 0 ]] || ! command -v debootstrap >/dev/null; then
  echo "$0 needs root and debootstrap" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' INT TERM
root=$work/root
log=$work/log
quietly() { "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }; }

echo "building $tag from Debian's packages (about a minute)"
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
[[ -z ${http_proxy:-} ]] || export http_proxy
from=$(mirror)
quietly debootstrap --foreign --variant=minbase --include="$packages" "$suite" "$root" ${from:+"$from"}

# Between unpacking and configuring: no cluster yet, no service ever, no fsync for what is thrown away, no manuals.
mkdir -p "$root"/etc/{postgresql-common,dpkg/dpkg.cfg.d}
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
printf '%s\n' force-unsafe-io path-exclude=/usr/share/{doc,man,info,locale}/'*' >"$root/etc/dpkg/dpkg.cfg.d/small"
quietly chroot "$root" /debootstrap/debootstrap --second-stage

quietly tar -C "$root" --one-file-system --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -cf "$work/rootfs.tar" .
(cd "$here" && cp "${files[@]}" "$work")
rm -rf --one-file-system "$root"
quietly docker build -q -t "$tag" -f "$work/${files[0]}" "$work"
echo "$tag is there: $(docker image inspect -f '{{.Size}}' "$tag" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
