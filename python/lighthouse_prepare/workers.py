"""A function over a stream, in several processes, with results in the order of the stream."""

import collections
import concurrent.futures
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
                waiting.append(pool.submit(call, next(items)))
            except (StopIteration, PrepareError) as error:
                failure = error
        if not waiting:
            break
        yield waiting.popleft().result()
    if isinstance(failure, PrepareError):
        raise failure


def start(make, arguments):
    """In a worker: signals are the parent's to answer, and without it there is nothing to do."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    _function = make(*arguments)


def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def call(item):
    return _function(item)
