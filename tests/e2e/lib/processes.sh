# shellcheck shell=bash
# The processes of the node: each is started here, has its log in $work/logs, and is ended by its pid. To be
# sourced; needs say.sh and $work.

declare -A pids=()
started=()

# Starts a program in the background: start NAME COMMAND…
start() {
  local name=$1
  shift
  mkdir -p "$work/logs"
  "$@" >>"$work/logs/$name.log" 2>&1 </dev/null &
  pids[$name]=$!
  started+=("$name")
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# Ends what start began, politely if it can be had.
stop() {
  local name=$1 pid=${pids[$1]-} tenths=100
  [[ -n $pid ]] || return 0
  unset "pids[$name]"
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# Waits for readiness, or tells why there will be none: started_up NAME SECONDS COMMAND…
started_up() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name" || ((SECONDS - start >= limit)); then
      tail -n 30 "$work/logs/$name.log" >&2
      die "$name is not ready after $((SECONDS - start)) s; its log is above"
    fi
    sleep 0.2
  done
}

# Ends everything, the last first.
stop_all() {
  local index
  for ((index = ${#started[@]} - 1; index >= 0; index--)); do stop "${started[index]}"; done
}
