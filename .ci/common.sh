# For the other scripts to source.
# shellcheck shell=bash disable=SC2034

# The tests of the two modules in C++, by name: where one is renamed, pytest says so.
tokenizer_tests=(tests/data/tokenizer/test_{bpe_training,encoding,encoding_shortcuts,foreign_tokenizers,patterns,pretokenizer,tokenizer_files}.py tests/data/tokenizer/test_tokenizer_arguments.py)
kernel_tests=(tests/model/test_{attention,kernel_arguments}.py tests/writing/test_decoding.py)
# All of them but those that neither sanitizers nor qemu can run: compiling would take hours, and neither keeps to a limit of memory.
runs_everywhere="not torch_compile and not memory_that_runs_out"

# fresh_clone FOLDER PYTHON: goes into a clone of HEAD, in a virtual environment of its own.
fresh_clone() {
    git clone --quiet . "$1/alilama"
    "$2" -m venv "$1/venv"
    # shellcheck disable=SC1091
    source "$1/venv/bin/activate"
    unset PYTHONPATH
    cd "$1/alilama"
}

# together COMMANDS...: runs them side by side and prints what each of them said once it and those before it are done.
# Behind || or && bash goes on at an error, so there each command has to be a single one.
together() {
    local logs i failed=0 processes=()
    logs=$(mktemp -d)
    set -m  # a process group for each of them, so that all of it can be stopped
    for i in $(seq $#); do
        (eval "${!i}") > "$logs/$i" 2>&1 &
        processes+=($!)
    done
    set +m
    trap 'kill -- "${processes[@]/#/-}" 2> /dev/null; exit 130' INT TERM
    for i in $(seq $#); do
        wait "${processes[i - 1]}" || failed=1
        cat "$logs/$i"
    done
    trap - INT TERM
    rm -r "$logs"
    return $failed
}

# Installs Debian's packages where it may: as root, and in CI by sudo.
install_packages() {
    local log sudo=()
    command -v apt-get > /dev/null || return 0
    if [ "$(id -u)" != 0 ]; then
        [ "${CI:-}" = true ] || return 0
        sudo=(sudo)
    fi
    echo "+ apt-get install $*"
    log=$(mktemp)
    { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install \
        -y --no-install-recommends "$@"; } > "$log" 2>&1 || tail -n 2 "$log"
    rm "$log"
}

# need WHAT TEST PACKAGES...: whether the command TEST succeeds, if need be once the packages are installed. Where it does not,
# WHAT is skipped; in CI nothing may be.
need() {
    local what=$1 test=$2
    shift 2
    $test && return
    install_packages "$@"
    $test && return
    echo "$what: skipped, since it needs Debian's packages $*."
    [ "${CI:-}" != true ] || exit 1
    return 1
}

# find_clang FLAGS...: sets `clang` to a clang++ that links a fuzz target with these flags: $CLANGXX, else the usual names.
find_clang() {
    local name folder
    folder=$(mktemp -d)
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' > "$folder/probe.cpp"
    clang=
    for name in ${CLANGXX:-} clang++ clang++-{22..14}; do
        "$name" "$@" "$folder/probe.cpp" -o "$folder/probe" 2> /dev/null && clang=$name && break
    done
    rm -r "$folder"
    [ -n "$clang" ]
}
