"""Values of a device tensor that every layer of a forward asks for: read once."""

import threading
import weakref

import torch


class HostCopy(threading.local):
    """read(tensor, *more) of the latest arguments of this thread. The tensor is told by identity and version, so one that was
    written to is read again."""

    def __init__(self, read):
        self.read = read
        self.tensor = lambda: None
        self.key = self.value = None

    @torch.compiler.disable  # a traced graph has no values
    def __call__(self, tensor, *more):
        key = (None if tensor.is_inference() else tensor._version, *more)
        if self.tensor() is not tensor or self.key != key or key[0] is None:
            self.tensor, self.key, self.value = weakref.ref(tensor), key, self.read(tensor, *more)
        return self.value
