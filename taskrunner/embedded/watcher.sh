# Runs one server, ends it when its last user has ended, and cleans up. Run by launch.py as
#
#     sh -c THIS sh private|shared DIRECTORY_TO_REMOVE SERVER ARGUMENTS...
#
# in the server's directory, with the read end of the pipe `users` as standard input, the lock `alive.lock` as standard
# output and the log as standard error. It returns at once; what it leaves behind is nobody's child.
#
# Every user holds the write end of `users`, and the kernel closes it however the user ends: end of file means that no
# user is left. The server and this shell hold the lock: it is free exactly when the server is dead and this shell has
# cleaned up after it.
kind=$1
rubbish=$2
shift 2
exec 3<&0 4>&1 0</dev/null 1>&2

(
    "$@" 3<&- &
    server=$!

    # A signal to every process of a service means the server and its users; this ends after them, or leaves rubbish.
    trap '' HUP INT TERM

    # This one must not hold the lock: if the shell above is killed, a dead server can still be replaced.
    (
        while :; do
            while read -r line; do :; done
            # Somebody may be opening the pipe just now. Taking its name away decides: whoever was earlier has written
            # a line or is about to (the read waits for it); whoever is later finds no pipe, and waits for our end.
            mv users leaving
            read -r line || break
            mv leaving users
        done
        kill "$server"
        # An endless script, or a caller that had SIGTERM blocked, would keep the server: five seconds, then by force.
        count=0
        while [ "$count" -lt 50 ]; do
            sleep 0.1
            count=$((count + 1))
        done
        kill -9 "$server"
    ) <&3 3<&- 4>&- &
    watch=$!

    wait "$server"
    kill -9 "$watch"
    if [ "$kind" = private ]; then
        # The owner may start another server in this directory, so the directory stays until the owner has ended.
        exec 4>&-
        while read -r line; do :; done <&3
    fi
    if [ -n "$rubbish" ]; then
        rm -rf "$rubbish"
    fi
) &
