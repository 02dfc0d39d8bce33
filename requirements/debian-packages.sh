#!/bin/sh
# Install the Debian packages of debian-packages.txt that are missing. usage: debian-packages.sh PYTHON
# Asks apt nothing, and needs no root, when all of them are there.
set -eu
python=$1
list=$(dirname "$0")/debian-packages.txt

wanted=$(sed 's/#.*//' "$list")
# Debian's Python comes without ensurepip, which a virtual environment needs.
"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian (no dpkg and apt); install the counterparts of the packages in $list, then run 'make setup DEBIAN=no'" >&2
    exit 1
fi
missing=
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: Debian packages are missing and only root can install them; as root: apt-get install$missing" >&2
    exit 1
fi
echo "setup: installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
has_unit() {
    for folder in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system \
        /lib/systemd/system; do
        for unit in "$1.service" "$1.socket"; do
            if [ -e "$folder/$unit" ] || [ -L "$folder/$unit" ]; then return 0; fi
        done
    done
    return 1
}
for service in ssh:openssh-server nginx:nginx-light postgresql:postgresql slapd:slapd; do
    # One that the host has already is the site's own, from whatever package: nginx-light is missing where nginx serves.
    if has_unit "${service%:*}"; then continue; fi
    # For tests only: nobody has asked for a server that listens on this host.
    case " $missing " in
    *" ${service#*:} "*)
        name=${service%:*}
        echo "setup: the service $name is masked, so that nothing listens; to have one: systemctl unmask $name.service $name.socket"
        mkdir -p /etc/systemd/system
        for unit in $name.service $name.socket; do
            ln -s /dev/null /etc/systemd/system/$unit
        done
        ;;
    esac
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install --yes --quiet --no-install-recommends $missing </dev/null >"$log" 2>&1; }
# Package lists that are missing or out of date make the first try fail; no other reason to fetch them each time.
if ! install; then
    if ! apt-get update --quiet >"$log" 2>&1 || ! install; then
        tail -n 20 "$log" >&2
        echo "setup: apt-get could not install:$missing (its last lines are above)" >&2
        exit 1
    fi
fi
