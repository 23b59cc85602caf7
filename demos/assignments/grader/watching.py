"""Waiting for the process in which a submission runs, and ending it and all that it started."""

import os
import select
import signal
import time

MOST_OUTPUT = 20_000             # characters of what a submission prints that are kept: the first of them


def watch(pid: int, printed: int, noted: int, seconds: float, user: int | None, alone: bool) -> dict:
    """Wait for a child, keep the beginning of what it prints, end it when its time is over, and all that it started.

    printed, noted: the pipes' ends to read; user: whose processes are all to be ended, or None; alone: whether this is
    process 1 of a namespace, so that all others in it are to be ended.
    """
    os.set_blocking(printed, False)
    os.set_blocking(noted, False)
    start, kept, timed_out, status, pipe_open, parent = time.monotonic(), b"", False, None, True, os.getppid()
    while status is None:
        if time.monotonic() - start > seconds or os.getppid() != parent:  # its time is over, or the grader has ended
            timed_out = True
            kill_group(pid)
        if pipe_open and select.select([printed], [], [], 0.003)[0]:
            pipe_open, kept = drain(printed, kept)
        elif not pipe_open:
            time.sleep(0.003)
        done, exit_status = os.waitpid(pid, 0 if timed_out else os.WNOHANG)
        status = exit_status if done else None
    taken = time.monotonic() - start
    if alone:
        left = kill_everybody()
    else:
        kill_group(pid)
        kill_user(user)
        left = kill_orphans()
    if pipe_open:
        _, kept = drain(printed, kept)
    notes = drain(noted, b"")[1].decode("utf-8", "replace").splitlines()
    if left:
        notes.append(f"left {left} process{'es' if left > 1 else ''} running")
    return {"exit": os.waitstatus_to_exitcode(status), "timed_out": timed_out, "seconds": taken, "noted": notes,
            "printed": kept.decode("utf-8", "replace")}


def drain(pipe: int, kept: bytes) -> tuple[bool, bytes]:
    """Read what is in the pipe, at most 1 MB at a time: (whether it is still open, what is kept)."""
    for _ in range(16):
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return True, kept
        if not data:
            return False, kept
        kept = (kept + data)[:MOST_OUTPUT]
    return True, kept


def kill_group(pid: int) -> None:
    """End a child and all processes of its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # ended already, or has not made its group yet: then it is alone
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_everybody() -> int:
    """End all other processes of the namespace whose process 1 this is: how many there were."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return reaped()


def kill_user(user: int | None) -> None:
    """End all processes of a user; a child becomes that user to do it, so that it reaches no others."""
    if user is None:
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)                               # itself is spared
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def kill_orphans() -> int:
    """End what a child left behind in another group (Linux: it has become a child of ours): how many there were."""
    me, ended = os.getpid(), 0
    while os.path.exists(f"/proc/{me}/task/{me}/children"):
        with open(f"/proc/{me}/task/{me}/children") as file:
            left = [int(each) for each in file.read().split()]
        if not left:
            return ended
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        ended += reaped()
    return ended


def reaped() -> int:
    """Wait for all children: how many were ended by a SIGKILL."""
    ended = 0
    while True:
        try:
            status = os.wait()[1]
        except ChildProcessError:
            return ended
        ended += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
