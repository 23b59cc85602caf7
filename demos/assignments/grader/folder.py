"""Many submissions, several at a time: each worker has a session of its own, with a runner and folders of its own.

Submissions wait for their process most of the time, so that threads are enough. What a worker makes of a submission is
handed on as soon as it is there; putting the rows in order is up to whoever gets them.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Callable

import torch

from .session import Session


def at_once(jobs: int, new_session: Callable[[], Session], work: Callable, things: Iterable) -> Iterator[tuple]:
    """Gives (number, work(session, thing)) for each thing, as they end, `jobs` at once. Raises what `work` raises.

    However it ends, by Ctrl-C too, every session is closed, and with it every process that runs a submission.
    """
    numbered = list(enumerate(things))
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for each in numbered:
        waiting.put(each)
    sessions = [new_session() for _ in range(min(jobs, len(numbered)))]
    with_gradients, over = torch.is_grad_enabled(), threading.Event()

    def worker(session: Session) -> None:
        torch.set_num_threads(1)                                      # these two are a thread's own
        torch.set_grad_enabled(with_gradients)
        while not over.is_set():
            try:
                number, thing = waiting.get_nowait()
                done.put((number, work(session, thing), None))
            except queue.Empty:
                return
            except BaseException as error:  # to be raised where the results are read
                done.put((None, None, error))
                return

    workers = [threading.Thread(target=worker, args=(session,)) for session in sessions]
    try:
        for each in workers:
            each.start()
        for _ in numbered:
            number, result, error = done.get()
            if error is not None:
                raise error
            yield number, result
    finally:
        over.set()
        for session in sessions:
            session.interrupt()
        for each in workers:
            if each.ident is not None:                                # it was started
                each.join()
        for session in sessions:
            session.close()
