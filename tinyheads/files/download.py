"""OpenAI's GPT-2 files and EleutherAI's Pythia files, fetched once into `weights/<name>/`.

Each file is received as `<file>.part`, continued by an HTTP Range request where an earlier run
broke off, checked for its size (and, for OpenAI's two tokenizer files, its SHA-256), and only then
given its name: a file under its final name is complete. One process at a time downloads into a
folder; another waits, and finds the files there. From a terminal:

    python -m tinyheads download 124M
    python -m tinyheads download pythia-160m

How much a file should hold is known from the server alone: Content-Length, or the total in
Content-Range. Where the answer's body has another length than it said, or where it does not say
(and is not sent in chunks, which mark their end), nothing is taken for complete: the next attempt
asks for what lies behind the bytes received, and the server's "416, the file has N" decides.
"""

import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Iterator, Sequence

from tinyheads.config import PYTHIA_SIZES
from tinyheads.errors import DownloadError
from tinyheads.files.progress import Progress

try:
    import fcntl
except ImportError:  # not on Windows: there, two downloads at once into one folder must be avoided by hand
    fcntl = None


@dataclass(frozen=True)
class Source:
    """Where models are published: the address of one is base_url, or what the environment's `variable` says, and path.

    files: of a model, the weights last: where they are, the others are; tokenizer: those of them that tokenize.
    """

    base_url: str
    variable: str
    path: str
    files: tuple[str, ...]
    tokenizer: tuple[str, ...]


OPENAI = Source("https://openaipublic.blob.core.windows.net/gpt-2/models", "TINYHEADS_BASE_URL", "{name}",
                ("hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index", "model.ckpt.data-00000-of-00001"),
                ("vocab.bpe", "encoder.json"))
ELEUTHERAI = Source("https://huggingface.co/EleutherAI", "TINYHEADS_HUB_URL", "{name}/resolve/main",
                    ("config.json", "tokenizer.json", "model.safetensors"), ("tokenizer.json",))
SHA256 = {  # of OpenAI's tokenizer files, the same for every size; the ones that tiktoken pins for "gpt2"
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
TIMEOUT = 30   # seconds without a byte before a connection counts as dead
ATTEMPTS = 4   # for one file, each continuing where the one before it broke off
PIECE = 1 << 18  # bytes received at a time, at most
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)  # how none of the files begins


def source_of(name: str) -> Source:
    """Where a model of this name ("124M", "pythia-160m") is published."""
    return ELEUTHERAI if name in PYTHIA_SIZES else OPENAI


def fetch_model(name: str, folder: Path, base_url: str | None = None, files: Sequence[str] | None = None) -> None:
    """Fetch the files of a published model into a folder; `weights.download` says more. Raises DownloadError."""
    source = source_of(name)
    files = source.files if files is None else files
    base_url = (base_url or os.environ.get(source.variable) or source.base_url).rstrip("/")
    address = f"{base_url}/{source.path.format(name=name)}"
    if all((folder / file).exists() for file in files):
        return
    with only_process_in(folder):
        for file in files:
            if not (folder / file).exists():
                fetch(f"{address}/{file}", folder / file, source.files, SHA256.get(file))


@contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Make the folder, and wait until no other process downloads into it. Raises DownloadError where it cannot be made.

    The lock is the system's, on an empty file that is removed at the end. When a process ends, in whatever way, the
    system frees it: no lock is left behind. Where there are no such locks (Windows, some network drives) nobody waits.
    """
    lock = folder / ".download.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written ({error.strerror or error})") from error
    if fcntl is None:
        yield
        return
    while True:
        with open_file(lock, "wb") as file:
            wait_for(file, folder)
            if not is_name_of(lock, file):
                continue  # whoever held the lock has removed this file: there may be a new one
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def wait_for(file: BinaryIO, folder: Path) -> None:
    """Take the lock on an open file, as soon as nobody else holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if sys.stderr.isatty():
            print(f"another process downloads into {folder}; waiting for it", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return  # a file system without locks


def is_name_of(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def fetch(url: str, path: Path, files: Sequence[str], sha256: str | None = None) -> None:
    """Fetch one of a model's files, continuing `<path>.part` if that is there. `path` is whole or absent.

    Raises DownloadError.
    """
    part = path.with_name(path.name + ".part")
    try:
        for attempt in range(ATTEMPTS):
            try:
                receive(url, part)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == ATTEMPTS - 1:
                    raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS - 1:
                    raise DownloadError(no_network_message(url, path, part, error, files)) from error
            time.sleep(0.2 * 2**attempt)
        check_content(url, part, sha256)
        os.replace(part, path)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror or error})") from error


def receive(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file at `url`. Any way in which that fails is an exception."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = ask(url, have)
    except urllib.error.HTTPError as error:
        error.close()
        if not have or error.code != 416:
            raise
        return check_end(part, have, error.headers)  # nothing lies behind what is there
    with response:
        if response.status != 206:      # the whole file, whether or not a part was asked for
            have = 0
        elif response.headers.get("Content-Range", "").partition("-")[0] != f"bytes {have}":
            raise ConnectionError(f"asked for bytes from {have}, got {response.headers.get('Content-Range')!r}")
        refuse_other_content(url, response.headers)
        total, size = size_of_file(response, have), have
        if response.will_close:
            response.length = None      # read on behind Content-Length, to notice where that was wrong
        with open_file(part, "ab" if have else "wb") as file, \
                Progress(url.rsplit("/", 1)[1], total, "MB", scale=1e6, done=have) as bar:
            while piece := response.read1(PIECE):
                append(file, piece)
                bar.add(len(piece))
                size += len(piece)
    if size == 0 or size != total and not (total is None and response.chunked):
        raise ConnectionError(f"the connection ended after {size} of {'unknown' if total is None else total} bytes")


def ask(url: str, have: int) -> http.client.HTTPResponse:
    """The server's answer when asked for a file, or for what lies behind `have` bytes of it."""
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except ValueError as error:
        raise DownloadError(f"{url}: is no address to download from ({error}); one looks like "
                            f"{OPENAI.base_url}") from error
    if not isinstance(response, http.client.HTTPResponse):  # file:, data:, ftp:
        response.close()
        raise DownloadError(f"{url}: is no address on the web to download from; one looks like {OPENAI.base_url}")
    return response


def size_of_file(response: http.client.HTTPResponse, have: int) -> int | None:
    """How many bytes the whole file has, by the answer's headers; None where they do not say."""
    if response.status == 206:  # more than `have` and Content-Length where the server sends less than all the rest
        return total_of(response.headers)
    length = response.headers.get("Content-Length", "")
    return have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def total_of(headers: Message) -> int | None:
    """The file's size, the last number in: Content-Range: bytes 5-9/100."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if re.fullmatch("[0-9]{1,18}", total) else None


def check_end(part: Path, have: int, headers: Message) -> None:
    """The server has nothing behind the part's `have` bytes: it is whole, or does not belong to this file."""
    total = total_of(headers)
    if total != have:
        part.unlink()  # to begin anew
        raise ConnectionError(f"{part.name} did not fit the server's file of {total or 'unknown'} bytes")


def refuse_other_content(url: str, headers: Message) -> None:
    """Raise DownloadError for an answer that says itself that it is not the file."""
    if headers.get_content_type() == "text/html":
        raise DownloadError(f"{url}: the server sent a web page in place of the file (a log-in or error page?)")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{url}: the server sent the file packed ({headers['Content-Encoding'][:50]}), unasked")


def open_file(path: Path, mode: str) -> BinaryIO:
    """A file to write to. An OSError here is the disk's, not the network's: DownloadError, no new attempt."""
    try:
        return open(path, mode, buffering=0)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror})") from error


def append(file: BinaryIO, piece: bytes) -> None:
    """Write a piece, all of it. Raises DownloadError, as on a full disk."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[file.write(rest):]
    except OSError as error:
        raise DownloadError(f"{file.name}: cannot be written ({error.strerror}); what was received stays there, "
                            f"make room and run again to continue") from error


def check_content(url: str, part: Path, sha256: str | None) -> None:
    """Raise DownloadError, and delete the file, if it is a web page, or not the one that OpenAI published."""
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        is_page = WEB_PAGE.match(file.read(200))
        file.seek(0)
        while sha256 and (piece := file.read(PIECE)):
            digest.update(piece)
    if is_page:
        part.unlink()
        raise DownloadError(f"{url}: the server sent a web page in place of the file; it was deleted")
    if sha256 and digest.hexdigest() != sha256:
        part.unlink()
        raise DownloadError(f"{url}: the file received has SHA-256 {digest.hexdigest()}, OpenAI's has {sha256}; it was "
                            f"deleted")


def no_network_message(url: str, path: Path, part: Path, error: Exception, files: Sequence[str]) -> str:
    """What to do by hand where the network does not answer."""
    received = f"{part.stat().st_size} bytes are in {part}, run again to continue. " if part.exists() else ""
    return (f"{url}: {getattr(error, 'reason', None) or error}. {received}Without a network, fetch the files elsewhere "
            f"and put them into {path.parent}/: {', '.join(files)}")
