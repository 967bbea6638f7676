#!/usr/bin/env bash
# tini 0.19.0, catatonit 0.1.7, dumb-init 1.2.5: what becomes of SIGTTIN, SIGTTOU and SIGTSTP sent to a container's init.
#
# Guess before the run: an init for containers passes every signal that can be caught on to its child (each of them says
# so of itself), so that a server which is told by SIGTTIN and SIGTTOU to grow and to shrink, as nginx's and unicorn's
# kin are, is told through it as well.
# Seen: tini and catatonit ignore SIGTTIN and SIGTTOU and pass neither on, without a word. dumb-init takes the two, and
# SIGTSTP, for job control: it stops its child and itself by SIGSTOP, so that an order to grow stands the service still.
#
# Output seen (Debian 12, Linux 6.18):
#   tini: TTIN lost, TTOU lost, TSTP passed on, USR2 passed on
#   catatonit: TTIN lost, TTOU lost, TSTP lost, USR2 passed on
#   dumb-init: TTIN stopped, TTOU stopped, TSTP stopped, USR2 passed on
set -euo pipefail
script=$(realpath "$0")
folder=$(mktemp -d)
init= child=
end() {
    for pid in $init $child; do kill -KILL "$pid" 2>/dev/null || true; done
    # What the child has started is in its group, which each of the inits makes.
    for pid in $child; do kill -KILL -- "-$pid" 2>/dev/null || true; done
    init= child=
}
trap 'end; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq tini=0.19.0-1+b3 catatonit=0.1.7-1+b2 dumb-init=1.2.5-2 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" .; done

cat >child.sh <<'CHILD'
trap ': >passed' TTIN TTOU TSTP USR2
echo $$ >pid
while :; do sleep 0.02; done
CHILD

fate() { # of the signal $1 behind the init $2…
    rm -f passed pid
    "${@:2}" sh child.sh >/dev/null 2>&1 &
    init=$!
    until [ -s pid ]; do sleep 0.02; done
    child=$(cat pid)
    kill -"$1" "$init"
    local fate=lost
    for _ in $(seq 25); do
        if [ -e passed ]; then fate="passed on"; break; fi
        case $(cut -d' ' -f3 "/proc/$child/stat") in T) fate=stopped; break ;; esac
        sleep 0.02
    done
    local ended=$init
    end
    wait "$ended" 2>/dev/null || true
    echo "$1 $fate"
}

look() { # a name, and the init's command
    local fates=()
    for signal in TTIN TTOU TSTP USR2; do fates+=("$(fate "$signal" "${@:2}")"); done
    echo "$1: ${fates[0]}, ${fates[1]}, ${fates[2]}, ${fates[3]}"
}

seen=$(look tini usr/bin/tini -s --; look catatonit usr/bin/catatonit --; look dumb-init usr/bin/dumb-init --)
echo "$seen"
diff <(sed -n 's/^#   \([a-z-]*: TTIN\)/\1/p' "$script") <(echo "$seen") >/dev/null || { echo "behaves otherwise by now"; exit 1; }
