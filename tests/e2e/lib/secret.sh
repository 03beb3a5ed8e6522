# shellcheck shell=bash
# Passwords and tokens. To be sourced.

# A new one, on standard output. Never on a command line: those show in process lists.
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
