"""Functions run by the ranks of a Gloo group: processes forked from a server that has imported torch already."""

import contextlib
import datetime
import io
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import traceback

SECONDS = 120  # a machine may be busy; what hangs ends sooner, by the timeout of the group
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torch._dynamo", "torch.distributed", "lighthouse_attention.huggingface"])


def start(rank, size, store, pipe, function, arguments):
    import torch
    import torch.distributed as dist
    os.environ.update(GLOO_SOCKET_IFNAME="lo", RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size,
                                timeout=datetime.timedelta(seconds=SECONDS / 2))
        pipe.send((function(*arguments), None))
        if dist.is_initialized():
            dist.barrier()  # who goes first would end the connections of others
    except BaseException:
        pipe.send((None, traceback.format_exc()))


def run_program(path, arguments, port):
    """A program that torchrun would start on each rank; its output."""
    import torch.distributed as dist
    dist.destroy_process_group()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = [path, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(path, run_name="__main__")
    return output.getvalue()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_ranks(size, function, *arguments):
    """[function(*arguments) of each rank]. The function, of a module, and its results are pickled."""
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        ranks = [context.Process(target=start, args=(rank, size, f"{folder}/store", pipe, function, arguments), daemon=True)
                 for rank, (_, pipe) in enumerate(pipes)]
        for process in ranks:
            process.start()
        try:
            results = [receiver.recv() if receiver.poll(SECONDS) else (None, "no answer") for receiver, _ in pipes]
        finally:
            for process in ranks:
                process.join(5)
                process.kill()
    errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(results) if error]
    assert not errors, "\n".join(errors)
    return [result for result, _ in results]
