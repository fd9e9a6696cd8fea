"""Functions run by the ranks of a Gloo group: processes forked from a server that has imported torch already."""

import contextlib
import datetime
import io
import multiprocessing
import os
import runpy
import socket
import sys
import traceback
from multiprocessing import forkserver
from unittest import mock

SECONDS = 240  # a machine may be busy; what hangs ends sooner, by the timeout of the group
context = multiprocessing.get_context("forkserver")
preloaded = ["torch._dynamo", "torch.distributed", "lighthouse_attention.huggingface"]


def start_server():
    """It imports what is preloaded where it finds it, for which it knows PYTHONPATH alone, and says nothing where it does not."""
    context.set_forkserver_preload(preloaded)
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()


def environment(size):
    """What torchrun tells all ranks, and through which interface Gloo connects them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # a free one
    return dict(WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                GLOO_SOCKET_IFNAME="lo")


def start(rank, of_all, with_group, pipe, function, arguments):
    import torch
    import torch.distributed as dist
    os.environ.update(of_all, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    try:
        if with_group:
            dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=SECONDS / 2))
        pipe.send((function(*arguments), None))
        if dist.is_initialized():
            dist.barrier()  # who goes first would end the connections of others
    except BaseException:
        pipe.send((None, traceback.format_exc()))


def run_program(path, arguments):
    """A program that torchrun would start on each rank; its output."""
    sys.argv = [path, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(path, run_name="__main__")
    return output.getvalue()


def answer_of(process, receiver):
    """(result, error) of a rank."""
    try:
        return receiver.recv() if receiver.poll(SECONDS) else (None, f"no answer in {SECONDS} s")
    except EOFError:
        process.join(5)
        return None, f"died with exit code {process.exitcode}"


def run_ranks(size, function, *arguments, with_group=True):
    """[function(*arguments) of each rank], in the environment that torchrun makes. The function, of a module, and its results are
    pickled. Without a group, it makes one."""
    start_server()
    of_all, pipes = environment(size), [context.Pipe(duplex=False) for _ in range(size)]
    ranks = [context.Process(target=start, args=(rank, of_all, with_group, pipe, function, arguments), daemon=True)
             for rank, (_, pipe) in enumerate(pipes)]
    for process in ranks:
        process.start()
    for _, sender in pipes:
        sender.close()  # so that a rank that dies is seen
    try:
        results = [answer_of(process, receiver) for process, (receiver, _) in zip(ranks, pipes)]
    finally:
        for process in ranks:
            process.join(5)
            process.kill()
    errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(results) if error]
    assert not errors, "\n".join(errors)
    return [result for result, _ in results]
