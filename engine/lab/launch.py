"""Become another program that the kernel kills when the thread which started it ends.

Owns: nothing; it runs as a script of its own, `python -S launch.py PARENT PROGRAM [ARGUMENT]...`,
because the wish must be made in the new process, and doing it between fork
and exec in a process with threads may deadlock.
Never: imports the rest of the project: starting it has to be cheap.
Invariant: it either becomes the program or exits with 127, saying why.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    parent, program = int(sys.argv[1]), sys.argv[2]
    if os.getppid() != parent:  # it ended before the wish was made
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.execvp(program, sys.argv[2:])  # noqa: S606 - the caller's argument list
    except FileNotFoundError:
        sys.stderr.write(f"{program}: no such program\n")
    except OSError as error:
        sys.stderr.write(f"{program}: {error.strerror}\n")
    sys.exit(127)


if __name__ == "__main__":
    main()
