# shellcheck shell=bash
# Builds programs of Go modules into a folder, once: shared by the build scripts beside the go.mod files
# (../kubernetes, ../programs). To be sourced.
#
# A folder of programs belongs to one version; a program in it is either whole or not there; test runs
# started side by side build once. Everything is said on standard error.

# What the messages start with: the folder of the script that is run.
label=$(basename "$(dirname "$(realpath "$0")")")
build=''
work=''

say() { printf '%s: %s\n' "$label" "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# The version that the go.mod $1 requires of module $2: go.mod alone says what is built.
module_version() {
  awk -v module="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module && $2 ~ /^v/ { print $2; exit }' "$1"
}

# Whether folder $1 holds all the programs named after it.
holds() {
  local dir=$1 program
  shift
  for program in "$@"; do
    [[ -x $dir/$program ]] || return 1
  done
}

# A test run that is cut short must leave neither compilers running nor half a
# program behind. go does not end its compilers when it ends: the whole process
# group goes.
clean_up() {
  [[ -z $build ]] || { kill -- "-$build" && wait "$build"; } 2>/dev/null || true
  [[ -z $work ]] || rm -rf "$work"
}

clean_up_at_exit() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# Makes folder $1 and takes it for this process, so that test runs started side
# by side build once.
take() {
  mkdir -p "$1"
  # The folder ignores itself, wherever it is.
  echo '*' >"$1/.gitignore"
  exec 9>"$1/.lock"
  flock --nonblock 9 && return
  say "waiting for another build in $1"
  flock 9
}

# Ends with a hint unless a Go is there that can build the module of folder $1.
require_go() {
  local least
  least=$(awk '$1 == "go" { print $2 }' "$1/go.mod")
  [[ -n $(type -P go) ]] || die "go is not on PATH; needed is Go $least or newer: https://go.dev/doc/install"
}

# Prints those of the programs named after folder $1 that it does not hold.
lacking() {
  local dir=$1 program
  shift
  for program in "$@"; do
    [[ -x $dir/$program ]] || printf '%s\n' "$program"
  done
}

# Builds packages of the Go module in folder $2 into folder $1, with linker flags $3, telling how far it is. One call
# for all packages: what they share is compiled once, and no processor waits for the end of a single program.
build_programs() {
  local dir=$1 module=$2 flags=$3 start=$SECONDS log shown=0 names
  shift 3
  names=$(basename -a "$@" | tr '\n' ' ')
  # On the file system of the result, so that renaming is all it takes. A killed
  # build may have left it.
  work=$dir/.work
  log=$work/log
  rm -rf "$work"
  mkdir -p "$work/programs"
  say "building ${names% }; the first time takes minutes"
  # setsid: a process group of its own, for clean_up. nice: all cores are used,
  # yet the machine stays usable. No cgo: no C compiler is needed, and the
  # programs are static. The compiler shares the lock, so that one that outlives
  # a killed script still keeps others out.
  (
    cd "$module" || exit
    CGO_ENABLED=0 GOTMPDIR=$work exec setsid nice -n 10 \
      go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$work/programs/" "$@"
  ) >"$log" 2>&1 &
  build=$!
  while kill -0 "$build" 2>/dev/null; do
    if ((SECONDS - start - shown >= 20)); then
      shown=$((SECONDS - start))
      say "$shown s, $(grep -vc '^go: ' "$log" || true) packages compiled"
    fi
    sleep 0.5
  done
  if ! wait "$build"; then
    build=''
    tail -n 20 "$log" >&2
    die "${names% } did not build"
  fi
  build=''
  # Renaming comes last: a program is either whole or not there.
  mv "$work/programs"/* "$dir"
  rm -rf "$work"
  work=''
  say "built in $((SECONDS - start)) s"
}
