"""OpenAI's GPT-2 files, fetched once into `weights/<size>/`.

Each file is received as `<file>.part`, continued by an HTTP Range request where an earlier run
broke off, checked for its size (and, for the two tokenizer files, its SHA-256), and only then
given its name: a file under its final name is complete. From a terminal:

    python -m tinyheads download 124M
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tinyheads.checkpoint import find_weights, search_path
from tinyheads.config import OPENAI_SIZES
from tinyheads.errors import DownloadError
from tinyheads.progress import Progress

BASE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"  # or the environment's TINYHEADS_BASE_URL
FILES = ["hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
SHA256 = {  # of every size's tokenizer files; the ones that tiktoken pins for "gpt2"
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
TIMEOUT = 30   # seconds without a byte before a connection counts as dead
ATTEMPTS = 4   # for one file, each continuing where the one before it broke off
PIECE = 1 << 18  # bytes between two looks at the progress bar


def download(size: str, folder: str | Path | None = None, base_url: str | None = None,
             files: list[str] = FILES) -> Path:
    """Fetch a model of OpenAI's ("124M", "355M", "774M", "1558M"); gives the folder it lies in.

    folder: where to; `weights/<size>` of the first place in the search path if None.
    base_url: address before `/<size>/<file>`; else TINYHEADS_BASE_URL, else OpenAI's own.
    Files that are there already are left alone. Raises DownloadError; run again to continue.
    """
    if size not in OPENAI_SIZES:
        raise DownloadError(f"no OpenAI model {size!r}; there are {', '.join(OPENAI_SIZES)}")
    folder = Path(folder) if folder else search_path()[0] / size
    base_url = (base_url or os.environ.get("TINYHEADS_BASE_URL") or BASE_URL).rstrip("/")
    for name in files:
        if not (folder / name).exists():
            fetch(f"{base_url}/{size}/{name}", folder / name, SHA256.get(name))
    return folder


def locate(name: str | Path, files: list[str] = FILES) -> Path:
    """Where a named model or a path lies; of OpenAI's models, `files` are downloaded first where missing.

    A model.safetensors under a size's name (converted from OpenAI's, say) will do for the weights.
    """
    if name not in OPENAI_SIZES:
        return find_weights(name)
    for folder in search_path():
        converted = "model.ckpt.index" in files and (folder / name / "model.safetensors").exists()
        if converted or all((folder / name / file).exists() for file in files):
            return folder / name
    return download(name, files=files)


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Fetch one file, continuing `<path>.part` if that is there. Raises DownloadError; `path` is whole or absent."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            try:
                receive(url, part)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == ATTEMPTS - 1:
                    raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS - 1:
                    raise DownloadError(no_network_message(url, path, part, error)) from error
            time.sleep(0.2 * 2**attempt)
        check_sha256(url, part, sha256)
        os.replace(part, path)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror or error})") from error


def receive(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file at `url`. Any way in which that fails is an exception."""
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except ValueError as error:
        raise DownloadError(f"{url}: is no address to download from ({error}); one looks like {BASE_URL}") from error
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing lies behind what we have
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(have):
                return
            part.unlink()               # longer than the file itself: begin anew
            raise ConnectionError(f"{part.name} did not fit the server's file of {total or 'unknown'} bytes") from error
        raise
    with response:
        if response.status != 206:      # the whole file, whether or not a part was asked for
            have = 0
        elif response.headers.get("Content-Range", "").partition("-")[0] != f"bytes {have}":
            raise ConnectionError(f"asked for bytes from {have}, got {response.headers.get('Content-Range')!r}")
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(f"{url}: the server sent a web page in place of the file (a log-in or error page?)")
        total = size_of_file(response, have)
        with open_part(part, "ab" if have else "wb") as file, \
                Progress(url.rsplit("/", 1)[1], total, "MB", scale=1e6, done=have) as bar:
            while piece := response.read(PIECE):
                append(file, piece)
                bar.add(len(piece))
        size = part.stat().st_size
        if size != (total or size) or size == 0:
            raise ConnectionError(f"the connection ended after {size} of {total or 'unknown'} bytes")


def size_of_file(response: http.client.HTTPResponse, have: int) -> int | None:
    """How many bytes the whole file has, by the answer's headers; None where they do not say."""
    of = response.headers.get("Content-Range", "").rpartition("/")[2]  # as in: bytes 5-9/100
    length = response.headers.get("Content-Length", "")
    if response.status == 206 and of.isdecimal():
        return int(of)  # more than `have` and `length` where the server sends less than all the rest
    return have + int(length) if length.isdecimal() else None


def open_part(part: Path, mode: str):
    """The file to receive into. An OSError here is the disk's, not the network's: DownloadError, no new attempt."""
    try:
        return open(part, mode, buffering=0)
    except OSError as error:
        raise DownloadError(f"{part}: cannot be written ({error.strerror})") from error


def append(file, piece: bytes) -> None:
    """Write a piece, all of it. Raises DownloadError, as on a full disk."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[file.write(rest):]
    except OSError as error:
        raise DownloadError(f"{file.name}: cannot be written ({error.strerror}); what was received stays there, "
                            f"make room and run again to continue") from error


def check_sha256(url: str, part: Path, expected: str | None) -> None:
    """Raise DownloadError, and put the file away, if it is not the one that OpenAI published."""
    if expected is None:
        return
    found = hashlib.sha256(part.read_bytes()).hexdigest()
    if found != expected:
        part.unlink()
        raise DownloadError(f"{url}: the file received has SHA-256 {found}, OpenAI's has {expected}; it was deleted")


def no_network_message(url: str, path: Path, part: Path, error: Exception) -> str:
    """What to do by hand where the network does not answer."""
    received = f"{part.stat().st_size} bytes are in {part}, run again to continue. " if part.exists() else ""
    return (f"{url}: {getattr(error, 'reason', None) or error}. {received}Without a network, fetch the files elsewhere and put "
            f"them into {path.parent}/: {', '.join(FILES)}")
