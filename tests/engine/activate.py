"""A service manager's last act: `python activate.py NAMES DESCRIPTOR... -- COMMAND...` becomes COMMAND with the sockets."""

import os
import sys

FIRST = 3


def main(names, *arguments):
    end = arguments.index("--")
    aside = [os.dup(int(descriptor)) for descriptor in arguments[:end]]
    beyond = [os.dup2(descriptor, FIRST + 100 + number) for number, descriptor in enumerate(aside)]
    for number, descriptor in enumerate(beyond):
        os.dup2(descriptor, FIRST + number)  # which a command inherits
    os.closerange(FIRST + len(beyond), FIRST + 200)
    passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(beyond)), "LISTEN_FDNAMES": names}
    command = arguments[end + 1 :]
    os.execvpe(command[0], command, os.environ | passed)


main(*sys.argv[1:])
