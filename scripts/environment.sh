# Sourced by the other scripts: makes the Python environment and sets $PYTHON. Does nothing when it is up to date.
# The environment is .venv beside the scripts' parent, or the folder that TTC_VENV names.
# Arguments: the requirement files to install.

ttc_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ttc_venv=${TTC_VENV:-$ttc_root/.venv}
PYTHON=$ttc_venv/bin/python

ttc_base_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "error: no Python >= 3.10 with the venv module was found; install one (Debian: python3-venv)" >&2
    return 1
}

ttc_install() {
    local file stamp wanted
    stamp=$ttc_venv/.ttc-requirements
    wanted=$(for file in "$@"; do cat "$ttc_root/$file"; done)
    # The tests' requirements begin with those of the scripts, so what was installed for the tests serves both.
    if [ -x "$PYTHON" ] && [ -f "$stamp" ] && [[ "$(cat "$stamp")" == "$wanted"* ]]; then
        return
    fi
    if [ ! -x "$PYTHON" ]; then
        local base
        base=$(ttc_base_python) || return 1
        "$base" -m venv "$ttc_venv" || return 1
    fi
    echo "installing into $ttc_venv (some minutes, about 6 GB, the first time)" >&2
    set -- "${@/#/$ttc_root/}"
    local arguments=()
    for file in "$@"; do arguments+=(-r "$file"); done
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "${arguments[@]}" || return 1
    printf '%s\n' "$wanted" > "$stamp"
}

ttc_install "$@" || exit 1
