"""The wall around one exercise (Linux): namespaces in which there is nothing but what the exercise needs.

A process in namespaces of its own for mounts, processes, network and System V IPC (man 7 namespaces) sees only the
files that are mounted for it, only the processes that it started, and no network. The runner makes them in three steps:

    leave()     a child of the runner leaves for new namespaces; whoever is not root makes a user namespace first
    build()     its child, process 1 of the new ones, mounts what is needed under an empty root, and makes that the root
    give_up()   its child gives up all rights, and runs the submission

When process 1 ends, the kernel ends every process of its namespace, detached ones too. This file runs in the runner's
process and needs the standard library alone. Every failure is an OSError that names the step.
"""

import ctypes
import os
import re
import shutil
import stat
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 0x1000, 0x4000, 0x40000
KEPT_FLAGS = {os.ST_RDONLY: RDONLY, os.ST_NOSUID: NOSUID, 4: NODEV, 8: NOEXEC, 1024: 1024, 2048: 2048,
              4096: 1 << 21}     # as statvfs names them, and as mount does; the last three tell of access times
DETACH = 2
SET_PDEATHSIG, SET_DUMPABLE, CAPBSET_DROP, SET_CHILD_SUBREAPER, SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
SCRATCH_BYTES = 512 * 2**20      # what an exercise may write, into memory: its folder is gone with it
DEVICES = ("null", "zero", "full", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


def ask(name: str, *arguments) -> None:
    """A function of the C library that returns 0, or else OSError with its name."""
    encoded = [each.encode() if isinstance(each, str) else each for each in arguments]
    if getattr(libc, name)(*encoded) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}({', '.join(str(each) for each in arguments[:2])}): {os.strerror(error)}")


def prctl(*arguments: int) -> None:
    """man 2 prctl, where there is one."""
    if sys.platform == "linux":
        ask("prctl", *(ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:5]))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """man 2 mount."""
    text = [None if each is None else os.fsencode(each) for each in (source, target, kind, options)]
    if libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {target}: {os.strerror(error)}")


# --- step 1 ---------------------------------------------------------------------------------------------------


def leave() -> None:
    """Leave for new namespaces. The next child will be process 1 of the new one."""
    if os.geteuid() != 0:
        user, group = os.geteuid(), os.getegid()
        prctl(SET_DUMPABLE, 1)                                        # else the next three files are root's
        ask("unshare", NEWUSER)
        for name, text in [("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")]:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        prctl(SET_DUMPABLE, 0)
    ask("unshare", NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS)


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends. parent: its id, as this process sees it."""
    prctl(SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(70)                                                  # it has ended already


# --- step 2 ---------------------------------------------------------------------------------------------------


def build(root: str, shown: list[str], hidden: list[str], scratch: str, user: int) -> None:
    """Make an empty root with what is shown in it, for reading only, and go there.

    root: an empty folder; shown: paths, under the same names in the new root; hidden: what lies in them but is not to
    be seen; scratch: a folder, empty in the new root, that the submission may write into; user: whose it is then.
    """
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=4m,mode=755")
    steps = [(path, True) for path in shown] + [(path, False) for path in hidden]
    for path, is_shown in sorted(steps, key=lambda step: step[0].count("/")):   # a folder before what lies in it
        if is_shown:
            show(path, root + path)
        elif os.path.lexists(root + path):
            hide(root + path)
    for name in DEVICES:
        show(f"/dev/{name}", f"{root}/dev/{name}", flags=NOSUID)
    for path, options in [(scratch, f"size={SCRATCH_BYTES},mode=700,uid={user}"),
                          ("/dev/shm", f"size=64m,mode=700,uid={user}")]:
        os.makedirs(root + path, exist_ok=True)
        mount("tmpfs", root + path, "tmpfs", NOSUID | NODEV, options)
    take_in(scratch, root + scratch, user)
    os.makedirs(f"{root}/proc", exist_ok=True)
    try:
        mount("proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC)
    except PermissionError:
        pass  # in a container that hides part of its own /proc: then there is none here
    os.chdir(root)
    ask("pivot_root", ".", ".")                                       # the old root now lies over the new one
    ask("umount2", ".", DETACH)
    os.chdir("/")
    mount(None, "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    no_more_namespaces()


def show(path: str, at: str, flags: int = NOSUID | NODEV | RDONLY) -> None:
    """A file, folder or link, seen at another place too."""
    if os.path.islink(path) and not os.path.lexists(at):
        os.makedirs(os.path.dirname(at), exist_ok=True)
        os.symlink(os.readlink(path), at)
        return
    if os.path.isdir(path):
        os.makedirs(at, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(at), exist_ok=True)
        if not os.path.lexists(at):
            os.close(os.open(at, os.O_CREAT | os.O_WRONLY))
    mount(path, at, None, BIND | REC)
    kept = sum(flag for name, flag in KEPT_FLAGS.items() if os.statvfs(at).f_flag & name)
    mount(None, at, None, REMOUNT | BIND | flags | kept)


def hide(at: str) -> None:
    """Nothing, in the place of a file or a folder."""
    if os.path.islink(at):
        return                                                        # what it leads to is hidden, or not there at all
    if os.path.isdir(at):
        mount("tmpfs", at, "tmpfs", NOSUID | NODEV, "size=4m,mode=755")
    else:
        mount("/dev/null", at, None, BIND)


def no_more_namespaces() -> None:
    """Where this is a user namespace of our own: no further one can be made in it."""
    if os.geteuid() != 0 and os.path.exists("/proc/sys/user/max_user_namespaces"):
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")


# --- step 3 ---------------------------------------------------------------------------------------------------


def give_up(user: int) -> None:
    """Become a user without rights, who cannot win any back: `user`, where this process may choose."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)                                # the capabilities are gone with it
    elif sys.platform == "linux":
        for capability in range(64):
            if libc.prctl(CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
                break                                                 # beyond the last one
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)                 # version 3, this process
        ask("capset", header, (ctypes.c_uint32 * 6)())
    prctl(SET_NO_NEW_PRIVS, 1)
    prctl(SET_DUMPABLE, 0)


def own_count_of_processes() -> bool:
    """Whether a limit on a user's processes counts those behind the wall alone: he has no others, or Linux 5.14."""
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return os.geteuid() == 0 or sys.platform == "linux" and version >= (5, 14)


# --- what goes in, and what comes out --------------------------------------------------------------------------


def take_in(folder: str, copy: str, user: int) -> None:
    """Copy what lies in a folder, and give the copy to a user."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    for here, folders, files in os.walk(copy):
        for name in [*folders, *files]:
            os.chown(os.path.join(here, name), user, -1)


def take_out(here: str, folder: int, largest: int) -> None:
    """Copy what was handed back from this folder to another, open one, as plain files of a bounded size."""
    for name in sorted(os.listdir(here)):
        if not name.startswith(("out_", "imported")) or len(name) > 20:
            continue
        data = b"no plain file, or too large"                         # which no reader takes for an answer
        about = os.lstat(f"{here}/{name}")
        if stat.S_ISREG(about.st_mode) and about.st_size <= largest:
            with open(os.open(f"{here}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                data = file.read(largest)
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        with open(descriptor, "wb") as file:
            file.write(data)
