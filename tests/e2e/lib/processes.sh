# shellcheck shell=bash
# The processes of the node: each has its log in $work/logs and its pid in $work/pids, whoever of the scripts
# started it, and is ended by that pid. To be sourced; needs say.sh and $work.

# Starts a program in the background: start NAME COMMAND…
start() {
  local name=$1
  shift
  mkdir -p "$work/logs" "$work/pids"
  "$@" >>"$work/logs/$name.log" 2>&1 </dev/null &
  echo "$!" >"$work/pids/$name"
}

alive() { kill -0 "$(<"$work/pids/$1")" 2>/dev/null; }

# Ends what start began, politely if it can be had.
stop() {
  local name=$1 pid tenths=100
  pid=$(<"$work/pids/$name")
  rm "$work/pids/$name"
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null && ((tenths-- > 0)); do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
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
