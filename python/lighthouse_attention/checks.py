"""What a call may be given. The operators check the rest, with the same words in C++ and here."""

import math
import operator
import reprlib

import torch
from torch.autograd import forward_ad

from .errors import require

DEVICES = ("cpu", "cuda", "meta")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def integer(operation, name, value, symbolic=False):
    """A Python integer of one of any kind (numpy, a tensor of one element). A symbol of a traced graph becomes a constant of
    it, unless it may stay `symbolic`."""
    if torch.compiler.is_compiling():
        return traced_integer(operation, name, value, symbolic)
    if type(value) is not int:
        value = index_of(operation, name, value)
    if not -2**63 <= value < 2**63:
        raise ValueError(f"{operation}: {name} is {reprlib.repr(value)}; it must be an integer of 64 bits")
    return value


def index_of(operation, name, value):
    try:
        if not is_boolean(value):
            return operator.index(value)
    except TypeError:
        pass
    raise ValueError(f"{operation}: {name} is {reprlib.repr(value)}; it must be an integer")


def traced_integer(operation, name, value, symbolic):
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value if symbolic else operator.index(value)
    require(not isinstance(value, (float, torch.SymFloat)), operation + ": " + name + " is {}; it must be an integer", value)
    if isinstance(value, (bool, complex, str, list, tuple, type(None))):
        raise ValueError(f"{operation}: {name} is {value!r}; it must be an integer")
    raise ValueError(f"{operation}: {name} is a {type(value).__name__}, whose value a compiled graph does not know; pass an integer")


def is_boolean(value):
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def boolean(operation, name, value):
    """A Python bool of one of any kind."""
    if value is True or value is False:
        return value
    if torch.compiler.is_compiling() or not is_boolean(value) or value.ndim != 0:
        raise ValueError(f"{operation}: {name} is {value!r}; it must be True or False")
    return bool(value)


def attention_scale(operation, softmax_scale):
    """A Python float of a positive number of any kind, but for a symbol of a traced graph, which stays; None of None."""
    if softmax_scale is None:
        return None
    number = number_of(softmax_scale)
    if number is None or not 0 < number < math.inf:
        shown = softmax_scale if torch.compiler.is_compiling() else reprlib.repr(softmax_scale)
        require(False, operation + ": softmax_scale is {}; it must be a number, positive and finite, or left out for "
                "1 / sqrt(head_dim)", shown)
    return number


def number_of(value):
    """None of what is no real number."""
    if torch.compiler.is_compiling():
        return value if isinstance(value, (int, float, torch.SymInt, torch.SymFloat)) and not isinstance(value, bool) else None
    if is_boolean(value) or isinstance(value, (str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def check_attention(operation, attention, softmax_scale):
    """Of an attention in the middle."""
    if attention is None:
        return
    require(callable(attention), f"{operation}: attention is a {type(attention).__name__}; it must be callable(q, k, v)")
    require(softmax_scale is None, operation + ": softmax_scale is {}, but `attention` is given and scales by itself; leave one out",
            softmax_scale)


def check_tensor(operation, name, x, meaning, beside, other):
    """That x is a tensor as `beside` is, which is called `other`."""
    require(isinstance(x, torch.Tensor), f"{operation}: {name} is a {type(x).__name__}; it must be a tensor {meaning}: "
            f"torch.as_tensor({name}) makes one")
    require(x.layout == torch.strided, f"{operation}: {name} has layout {x.layout}; pass {name}.to_dense()")
    require(x.device == beside.device, f"{operation}: {name} is on {x.device}, but {other} is on {beside.device}; move it there")


def check_qkv(operation, q, k, v):
    """What Python itself relies on."""
    try:  # this runs in every call, so what is usual comes first
        if (q.dim() == k.dim() == v.dim() == 4 and q.device == k.device == v.device and q.device.type in DEVICES
                and q.layout == k.layout == v.layout == torch.strided and not (q.is_quantized or k.is_quantized or v.is_quantized)):
            return
    except AttributeError:
        pass
    for name, x, heads in (("q", q, "num_heads"), ("k", k, "num_kv_heads"), ("v", v, "num_kv_heads")):
        shape = f"[batch, seq_len, {heads}, head_dim]"
        require(isinstance(x, torch.Tensor), f"{operation}: {name} is a {type(x).__name__}; it must be a tensor {shape}")
        require(x.dim() == 4, f"{operation}: {name} has {x.dim()} dimensions; it must be {shape}")
        require(x.layout == torch.strided, f"{operation}: {name} has layout {x.layout}; pass {name}.to_dense()")
        require(not x.is_quantized, f"{operation}: {name} is {x.dtype}; pass {name}.dequantize()")
        require(x.device == q.device, f"{operation}: {name} is on {x.device}, but q is on {q.device}; move q, k and v to one "
                "device")
        require(x.device.type in DEVICES, f"{operation}: {name} is on {x.device}; the operators run on cpu and cuda")


def check_heads(operation, q, k, v):
    """What the operators check, for a call that needs none of them, or hands them other tensors."""
    wide, narrow = q.shape, k.shape
    if (q.dtype == k.dtype == v.dtype and q.dtype in FLOATS and 0 not in wide and 0 not in narrow and narrow == v.shape
            and wide[0] == narrow[0] and wide[1] == narrow[1] and wide[3] == narrow[3] and wide[2] % narrow[2] == 0
            and q.stride(3) == k.stride(3) == v.stride(3) == 1):
        return
    if wide[1] == 0:
        raise ValueError(f"{operation}: the sequence has 0 tokens; it must have between 1 and 2147483647")
    for letter, x, heads in (("q", q, "num_heads"), ("k", k, "num_kv_heads")):
        if 0 in x.shape:
            raise ValueError(f"{operation}: {letter} has shape {list(x.shape)}; it must be [batch, seq_len, {heads}, head_dim] with no "
                             "size zero")
    if q.dtype not in FLOATS:
        raise ValueError(f"{operation}: q is {q.dtype}; it must be float32, float64, bfloat16 or float16")
    for letter, x in (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise ValueError(f"{operation}: {letter} is {x.dtype}, but q is {q.dtype}; cast q, k and v to one dtype")
    if k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        raise ValueError(f"{operation}: k has shape {list(k.shape)}, but q has {list(q.shape)}; they may differ in the number of "
                         "heads (dimension 2) only")
    if v.shape != k.shape:
        raise ValueError(f"{operation}: v has shape {list(v.shape)}, but k has {list(k.shape)}; they must be equal")
    if q.shape[2] % k.shape[2] != 0:
        raise ValueError(f"{operation}: num_heads {q.shape[2]} is not a multiple of num_kv_heads {k.shape[2]}; every KV head must "
                         "serve the same number of query heads")
    for letter, x in (("q", q), ("k", k), ("v", v)):
        if x.stride(3) != 1 and x.shape[3] != 1:
            raise ValueError(f"{operation}: the channels of {letter} have stride {x.stride(3)}; they must be contiguous (stride 1): "
                             f"pass {letter}.contiguous()")


@torch.compiler.assume_constant_result  # what a graph is traced within, and then called within
def functorch_transform():
    """The transform of torch.func around this call that the operators do not have; None where there is none."""
    if not torch._C._are_functorch_transforms_active():
        return None
    kind = torch._C._functorch.TransformType
    names = {kind.Grad: "torch.func.grad", kind.Jvp: "torch.func.jvp"}
    return next((names[level.key()] for level in torch._C._functorch.get_interpreter_stack() if level.key() in names), None)


def has_tangents(tensors):
    """Whether forward-mode derivatives are asked for. A graph does not see which tensors have tangents, only that some may."""
    if getattr(forward_ad, "_current_level", -1) < 0:
        return False
    return torch.compiler.is_compiling() or any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def check_transforms(operation, *tensors):
    """torch.func.vmap works; the autograd of torch.library takes no derivatives of a transformed function, and drops tangents."""
    transform = functorch_transform()
    if transform is None and has_tangents(tensors):
        transform = "forward-mode differentiation (torch.autograd.forward_ad, torch.func.linearize)"
    if transform is not None:
        raise NotImplementedError(f"{operation}: {transform} is not supported; use torch.autograd.grad or backward() (torch.func.vmap "
                                  "works)")
