# Sourced by the other scripts: runs named stages and says how long each took.
#
# stage NAME COMMAND… runs the command. Where STAGE_TIMES names a file, a line "SECONDS STATUS
# NAME" is appended to it, from which .ci/run prints its table.

# Tests are built without optimisation of the whole program, and each crate in parts (Cargo.toml): a score of
# programs takes less than half as long, for a quarter of a message's latency. What docs/performance.md says is
# measured as it is shipped.
export CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO:-off}
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=${CARGO_PROFILE_RELEASE_CODEGEN_UNITS:-4}
# A test that fails says where it did; to have lines in backtraces as well takes time to build.
export CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG:-none}

stage() {
    local name=$1 begin=$SECONDS status=0
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" || status=$?
    local took=$((SECONDS - begin))
    if [[ $status == 0 ]]; then
        printf '== %s: ok, %d s\n' "$name" "$took"
    else
        printf '== %s: FAILED with status %d after %d s\n' "$name" "$status" "$took" >&2
    fi
    if [[ -n ${STAGE_TIMES:-} ]]; then
        printf '%d %d %s\n' "$took" "$status" "$name" >>"$STAGE_TIMES"
    fi
    return "$status"
}

# need COMMAND PACKAGE…: installs Debian packages unless the command, or the file, is there. Returns
# 1, and says so, where it can't.
need() {
    local command=$1
    shift
    if command -v "$command" >/dev/null || [[ -f $command ]]; then
        return 0
    fi
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        printf 'MISSING: %s (Debian: apt-get install %s)\n' "$command" "$*" >&2
        return 1
    fi
    if [[ -z ${APT_UPDATED:-} ]]; then
        apt-get update -qq
        APT_UPDATED=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# What the web page's types and tests need, unless it is there as the lock file says. A registry that does not
# answer is asked again.
npm_packages() {
    local there=web/node_modules/.package-lock.json try
    if [[ -f $there && ! web/package-lock.json -nt $there ]]; then
        return 0
    fi
    for try in 1 2 3; do
        (cd web && npm ci --silent --no-audit --no-fund) && return 0
        ((try == 3)) || sleep $((try * 5))
    done
    return 1
}

# What attacks on clusters need beside the kernel (jepsen/). A run says which of them it misses.
jepsen_tools() {
    local status=0
    need ip iproute2 || status=1
    need nft nftables || status=1
    need iptables iptables || status=1
    need mkfs.ext4 e2fsprogs || status=1
    need mount mount || status=1
    need fsfreeze util-linux || status=1
    need strace strace || status=1
    need faketime faketime || status=1
    return "$status"
}

# jepsen_root PROGRAM: whether PROGRAM (folkmoot-jepsen) can run as root does here: found out by trying,
# as root in a container may do neither. Says why not.
jepsen_root() {
    local name=fmj-trial-$$ said
    if ! said=$(ip netns add "$name" 2>&1 && ip netns delete "$name" 2>&1); then
        printf 'no network namespaces here: %s\n' "$said" >&2
        return 1
    fi
    if ! said=$("$1" fault list --need partition,powercut,pause,kill,diskfull 2>&1 >/dev/null); then
        printf 'not every fault works here: %s\n' "$said" >&2
        return 1
    fi
}
