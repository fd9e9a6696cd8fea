"""A function over a stream, in several processes, with results in the order of the stream."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

from .errors import PrepareError

_function = None


def ordered_map(make, arguments, items, processes):
    """Yields make(*arguments)(item) for every item. Few items are under way at a time. An error of `items` comes after the
    results of what was before it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # within a process
    if processes == 1:
        yield from map(make(*arguments), items)
        return
    context = multiprocessing.get_context("spawn")  # a fork may copy a lock that some thread holds
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, start, (make, arguments))
    try:
        yield from in_order(pool, items, 2 * processes + 1)
    except BrokenProcessPool as error:
        raise PrepareError("a worker process was killed, perhaps for want of memory; give fewer --processes") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(pool, items, at_once):
    items, waiting, failure = iter(items), collections.deque(), None
    while True:
        while failure is None and len(waiting) < at_once:
            try:
                item = next(items)
            except (StopIteration, PrepareError) as error:
                failure = error
            else:
                with interrupts_blocked():  # for the worker that this may start: a terminal sends them to all
                    waiting.append(pool.submit(call, item))
        if not waiting:
            break
        yield waiting.popleft().result()
    if isinstance(failure, PrepareError):
        raise failure


@contextlib.contextmanager
def interrupts_blocked():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(make, arguments):
    """In a worker, which has nothing to do without its parent."""
    global _function
    threading.Thread(target=end_with_parent, daemon=True).start()
    _function = make(*arguments)


def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def call(item):
    return _function(item)
