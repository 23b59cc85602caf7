"""What a submission tries that no exercise asks for, noted for the instructor while it runs.

The interpreter tells its audit hooks (PEP 578) of files that are opened, processes that are started, signals that are
sent, and more. What a submission does itself, or has the standard library do, is noted; what torch or tinyheads do for
it is not. These are notes and no fence: the wall is what stops things, and whoever reaches into the interpreter's
memory can silence them. What no hook is told of (`__subclasses__`, a traceback's frames) is not noted.
"""

import os
import sys

MOST_NOTES = 20
OF_ALL = {"subprocess.Popen": "started a process", "os.system": "started a process", "os.exec": "started a process",
          "os.posix_spawn": "started a process", "os.fork": "started a process", "os.forkpty": "started a process",
          "os.kill": "sent a signal to process", "os.killpg": "sent a signal to processes",
          "socket.connect": "asked for the network", "socket.getaddrinfo": "asked for the network",
          "gc.get_objects": "looked through the interpreter's memory (gc)", "gc.get_referrers": "looked through the "
          "interpreter's memory (gc)", "ctypes.dlopen": "called the C library by itself (ctypes)"}
STARTERS_OWN = "tinyheads.course"   # what a starter's first cell tries to import, and with it tinyheads
OF_FILES = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.symlink")


def note_what_it_tries(pipe: int, folder: str, may_open: list[str], library: str, refused: tuple[str, ...]) -> None:
    """Write a line into the pipe for each such thing, from now on.

    folder: the submission's own; may_open: other folders whose files it may open; library: the copy of tinyheads, which
    is imported already, so that whoever opens its files does so himself; refused: modules that are not to be imported.
    """
    told: set[str] = set()
    with_course: list[str] = []                                       # the import of tinyheads that comes with it
    standard = (os.path.dirname(os.__file__) + os.sep, "<")
    may_open = tuple(os.path.join(each, "") for each in (folder, *may_open, "/dev", "/usr/share/zoneinfo"))

    def hook(event: str, arguments: tuple) -> None:
        if event in OF_FILES:
            text = opened(arguments)
        elif event in OF_ALL:
            text = OF_ALL[event] + (f" {arguments[0]}" if event in ("os.kill", "os.killpg") else "")
        elif event == "sys._getframe":
            text = "looked at the interpreter's frames"
        elif event == "import" and str(arguments[0]).split(".")[0] in refused:
            text = "" if starters(str(arguments[0])) else f"tried to import {str(arguments[0])[:50]}"
        else:
            return
        if text and text not in told and len(told) < MOST_NOTES and by_submission(event == "sys._getframe"):
            told.add(text)
            try:
                os.write(pipe, f"{text}\n".encode("utf-8", "replace"))
            except OSError:
                pass  # it has closed the pipe, which it may: these are notes

    def starters(name: str) -> bool:
        """Whether this import is the starter's own line's."""
        if name == STARTERS_OWN:
            with_course.append(name.split(".")[0])
            return True
        return name in with_course and not with_course.remove(name)

    def opened(arguments: tuple) -> str:
        """What to say of a file's name, or ""."""
        if not isinstance(arguments[0], (str, bytes)):
            return ""
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if library and path.startswith(library + os.sep):
            return f"opened the library's {os.path.basename(path)[:50]}"
        return "" if (path + os.sep).startswith(may_open) else f"opened {path[:200]}"

    def by_submission(at_once: bool) -> bool:
        """Whether the submission did it. at_once: without the standard library between (but for inspect)."""
        try:
            raise LookupError
        except LookupError as error:                                  # a frame, without telling this hook of it
            frame = error.__traceback__.tb_frame.f_back.f_back
        while frame is not None and passes_on(frame.f_code.co_filename, at_once):
            if frame.f_code.co_filename.endswith("traceback.py"):
                return False                                          # an error's text, with the lines it names
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.startswith(folder)

    def passes_on(file: str, at_once: bool) -> bool:
        """Whether a file is the standard library's, which did what it was called for."""
        if at_once:
            return file.endswith("inspect.py")
        return file.startswith(standard) and "site-packages" not in file and "dist-packages" not in file

    sys.addaudithook(hook)
