"""The functions of the package. docs/algorithm.md defines what they compute; sections named here are its sections.

Layout: q [B, N, H, d]; k and v [B, N, H_kv, d], H a multiple of H_kv; any strides with a contiguous last dimension.
dtypes: float32, float64, bfloat16, float16, the same for all three; under autocast they are cast to its dtype. Sums run
in fp32 (fp64 for float64). Everything but the attention in the middle gives the same bits in every run.

Wrong arguments raise ValueError; the message names the value, the limit and what would do.
"""

import functools
import operator
import reprlib

import torch

from . import context, library
from .checks import attention_scale, boolean, check_attention, check_heads, check_qkv, check_tensor, check_transforms, integer
from .dilated import dilated_scores
from .errors import require
from .inner import Stock, attend_each, stock_attention, with_any_gradient
from .operators import gather_by_norm, gather_rows, ops, rows_by_cascade, scatter_rows

SCORERS = ("norm", "dilated", "gla")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)
EVERY_TOKEN = (1, 2, 1, 128)  # a layout with one level, which gathers all tokens


@torch.compiler.assume_constant_result
def constant_rows(layout, offsets):
    return library.plan("lighthouse_attention", offsets[-1], layout, offsets)[2]


def rows_of_documents(q, layout, offsets):
    """How many rows each document of q [B, N, H, d] gathers; None where it is one."""
    if offsets is None:
        return None
    if torch.compiler.is_compiling():
        return constant_rows(layout, offsets)
    check_packed("lighthouse_attention", q)
    return library.plan("lighthouse_attention", q.shape[1], layout, offsets)[2]


@torch.compiler.assume_constant_result
def check_layout(num_levels, pooling_factor, tile_topk):
    library.plan("lighthouse_attention", 1, (num_levels, pooling_factor, 1, tile_topk))


def is_full(q, layout, num_rows):
    """Whether no sequence of the row would get shorter, so that the call is plain causal attention (section (iii)); documents
    gather `num_rows` rows each."""
    if num_rows is not None:
        return sum(num_rows) == q.shape[1]
    if torch.compiler.is_compiling() or isinstance(q.shape[1], torch.SymInt):
        check_layout(layout[0], layout[1], layout[3])
        require(layout[2] >= 1, "lighthouse_attention: topk is {}; it must be between 1 and 2147483647", layout[2])
        return rows_by_cascade(q.shape[1], layout) >= q.shape[1]
    return library.plan("lighthouse_attention", q.shape[1], layout)[0] == q.shape[1]


# How the operators' messages about arguments begin.
ARGUMENT_ERRORS = ("lighthouse_attention: ", "token_scores: ", "token_norms: ", "select: ", "selection: ", "selection has ",
                   "gather: ", "scatter: ", "lighthouse: layout ")


def raises_value_errors(function):
    """Torch hands on the std::invalid_argument of an operator as ValueError up to 2.11, in 2.15 as RuntimeError."""
    @functools.wraps(function)
    def call(*arguments, **options):
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        try:
            return function(*arguments, **options)
        except RuntimeError as error:
            if type(error) is not RuntimeError or not str(error).startswith(ARGUMENT_ERRORS):
                raise
            raise ValueError(str(error)) from None
    return call


def layout_of(operation, num_levels, pooling_factor, topk, tile_topk):
    """What the operators are told about the gathered sequence."""
    sizes = dict(num_levels=num_levels, pooling_factor=pooling_factor, topk=topk, tile_topk=tile_topk)
    return [integer(operation, name, value, symbolic=True) for name, value in sizes.items()]


OFFSETS = "it must be a list, an array or a 1-dimensional tensor of integers, the token offsets 0, ..., N"


def offsets_of_64_bits(operation, offsets):
    if offsets and not -2**63 <= min(offsets) <= max(offsets) < 2**63:
        wrong = next(offset for offset in offsets if not -2**63 <= offset < 2**63)
        raise ValueError(f"{operation}: cu_seqlens has {wrong}; {OFFSETS}, of 64 bits")
    return offsets


def host_offsets(operation, cu_seqlens):
    """cu_seqlens as a list of Python integers; a device tensor is copied to the host, which waits for the device."""
    if cu_seqlens is None:
        return None
    if torch.compiler.is_compiling() and not isinstance(cu_seqlens, (list, tuple, torch.Tensor, torch.Size, range)):
        raise ValueError(f"{operation}: cu_seqlens is a {type(cu_seqlens).__name__}, of which a compiled graph does not know the values; "
                         "pass a list")
    if hasattr(cu_seqlens, "tolist") and hasattr(cu_seqlens, "dtype"):  # a tensor, or a numpy array
        is_integer = (cu_seqlens.dtype in INTEGERS if isinstance(cu_seqlens, torch.Tensor) else cu_seqlens.dtype.kind in "iu")
        kind = "tensor" if isinstance(cu_seqlens, torch.Tensor) else "array"
        require(cu_seqlens.ndim == 1 and is_integer, f"{operation}: cu_seqlens is a {cu_seqlens.dtype} {kind} of shape "
                f"{list(cu_seqlens.shape)}; {OFFSETS}")
        if kind == "tensor":
            require(cu_seqlens.layout == torch.strided, f"{operation}: cu_seqlens has layout {cu_seqlens.layout}; pass "
                    "cu_seqlens.to_dense()")
            require(cu_seqlens.device.type != "meta", f"{operation}: cu_seqlens is on meta, where a tensor has no values; pass a list")
        if torch.compiler.is_compiling():
            raise ValueError(f"{operation}: cu_seqlens is a {kind}, whose values a compiled graph does not know; pass a list "
                             f"(cu_seqlens.tolist() outside of the compiled function)")
        cu_seqlens = cu_seqlens.tolist()
    if torch.compiler.is_compiling():
        return [operator.index(offset) for offset in cu_seqlens]  # a constant, where int() is not
    try:
        return offsets_of_64_bits(operation, list(map(operator.index, cu_seqlens)))
    except TypeError:
        raise ValueError(f"{operation}: cu_seqlens is {reprlib.repr(cu_seqlens)}; {OFFSETS}") from None


def without_values(cu_seqlens):
    """Whether they are a tensor in a traced graph."""
    return isinstance(cu_seqlens, torch.Tensor) and torch.compiler.is_compiling()


def check_packed(operation, q):
    check_packed_batch(operation, q.shape[0])


def check_packed_batch(operation, batch):
    require(batch == 1, f"{operation}: cu_seqlens is given with batch {batch}; packed documents need batch 1: "
            "concatenate the sequences along the tokens")


def check_offsets(operation, q, offsets):
    """For the paths that no operator checks; q is [B, N, ...]."""
    if offsets is not None and not torch.compiler.is_compiling():
        check_packed(operation, q)
        library.plan(operation, q.shape[1], EVERY_TOKEN, offsets)


def check_scorer(scorer, dilation, gate):
    require(scorer in SCORERS, f"token_scores: scorer is '{scorer}'; it must be norm, dilated or gla")
    require(dilation >= 1, f"token_scores: dilation is {dilation}; it must be at least 1")
    require(gate is not None or scorer != "gla", "token_scores: scorer is 'gla', but no gate is given; pass the log forget "
            "gate [batch, seq_len, num_heads]")
    require(gate is None or scorer == "gla", f"token_scores: a gate is given, but scorer is '{scorer}'; only scorer 'gla' "
            "takes one")
    require(gate is None or (isinstance(gate, torch.Tensor) and gate.is_floating_point()), "token_scores: gate is "
            f"{gate.dtype if isinstance(gate, torch.Tensor) else 'a ' + type(gate).__name__}; it must be a floating point "
            "tensor, a logarithm <= 0")


def under_autocast(q, *others):
    """What autocast does to the inputs of an attention."""
    if q.device.type == "meta" or not torch.is_autocast_enabled(q.device.type):  # meta has no autocast
        return q, *others
    dtype = torch.get_autocast_dtype(q.device.type)
    return tuple(x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in (q, *others))


def gathered_length(seq_len, *, num_levels, pooling_factor, topk, tile_topk=128, cu_seqlens=None):
    """S, the rows that `seq_len` tokens gather (section (iii)): n + p * the sum over tiles and levels of what is expanded, and
    `seq_len` where that is not less. Of a row of documents at `cu_seqlens` (as in token_scores) it is the sum of theirs.

    Raises:
        ValueError: an argument is out of range.
    """
    name = "gathered_length"
    layout = layout_of(name, num_levels, pooling_factor, topk, tile_topk)
    return library.plan(name, integer(name, "seq_len", seq_len, symbolic=True), layout, host_offsets(name, cu_seqlens))[0]


@raises_value_errors
@torch.no_grad()
def token_scores(q, k, v, *, scorer="norm", dilation=4, gate=None, cu_seqlens=None):
    """Level-0 scores of every token and KV head (section (ii)). No gradient passes.

    Args:
        q, k, v: [B, N, H, d], [B, N, H_kv, d] twice.
        scorer: "norm" (norms of q and k), "dilated" (norms of causal attention within each residue class of tokens) or
            "gla" (the same with gated linear attention).
        dilation: residue classes of "dilated" and "gla", at least 1.
        gate: [B, N, H], any floating dtype: the log forget gate that "gla" needs.
        cu_seqlens: token offsets [documents + 1] of packed documents (B = 1): a list, a numpy array, a host tensor, or a
            device tensor (one copy to the host, which waits for the device).

    Returns:
        (s_qk, s_kq), float32 [B, H_kv, N], each the largest of its group of query heads.

    Raises:
        ValueError: a shape, dtype or option is wrong.
    """
    check_qkv("token_scores", q, k, v)
    dilation = integer("token_scores", "dilation", dilation)
    check_scorer(scorer, dilation, gate)
    if gate is not None:
        check_tensor("token_scores", "gate", gate, "[batch, seq_len, num_heads]", q, "q")
    q, k, v = under_autocast(q, k, v)
    check_heads("token_scores", q, k, v)
    offsets = host_offsets("token_scores", cu_seqlens)
    check_offsets("token_scores", q, offsets)
    if scorer == "gla":
        return ops._gla_scores(q, k, v, gate.float(), dilation, offsets)
    if scorer == "dilated":
        return dilated_scores(q, k, v, dilation, offsets)
    return ops._token_norms(q, k.shape[2]), ops._token_norms(k, k.shape[2])


@raises_value_errors
def select(s_qk, s_kq, *, num_levels, pooling_factor, topk, tile_topk=128, cover_prefix=True, cu_seqlens=None):
    """Which entries of the pyramid are gathered, and in which order (sections (iii) and (iv)).

    The result depends on the scores only, bit for bit on every device. Ties go to the lower index; NaN counts as -infinity.

    Args:
        s_qk, s_kq: float32 [B, H_kv, N].
        num_levels: L, 1 to 8; 1 is plain attention.
        pooling_factor: p, entries of a level under one of the next: 2, 4, 8 or 16.
        topk: k, entries expanded on each level over the whole row, at least 1.
        tile_topk: m, the share of k that one tile is given; there are ceil(k / m) tiles.
        cover_prefix: always expand entry 0 of every level, so that every token has a row. False is the authors' code.
        cu_seqlens: as in token_scores.

    Returns:
        int32 [B, H_kv, S]: for each row, in gathered order, the index of its entry: entry (l, i) is offset(l) + i with
        offset(0) = 0, offset(1) = N, offset(2) = N + N/p, ..., N rounded up to a multiple of p^(L-1). Of a row that would
        not get shorter: the tokens, 0 to N - 1.

    Raises:
        ValueError: a shape, dtype or option is wrong.
    """
    for name, scores in (("s_qk", s_qk), ("s_kq", s_kq)):
        check_tensor("select", name, scores, "[batch, num_kv_heads, seq_len], float32", s_qk, "s_qk")
    return ops._select_entries(s_qk, s_kq, layout_of("select", num_levels, pooling_factor, topk, tile_topk),
                               boolean("select", "cover_prefix", cover_prefix), host_offsets("select", cu_seqlens))[0]


@raises_value_errors
def lighthouse_attention(q, k, v, *, num_levels=3, pooling_factor=4, topk, tile_topk=128, scorer="norm", dilation=4,
                         gate=None, scores=None, cover_prefix=True, cu_seqlens=None, softmax_scale=None, selection=None,
                         check_selection=True, attention=None, group=None, shard_offsets=None):
    """Lighthouse attention: scatter(attention(gather(q, k, v))), the whole of docs/algorithm.md.

    Gradients reach q, k and v with the selection held; scores and selection have none (section (vii)). For a selection that
    is held, output j depends on tokens <= j only; the selection itself looks at the whole row.

    Args:
        q, k, v: [B, N, H, d], [B, N, H_kv, d] twice.
        num_levels, pooling_factor, topk, tile_topk, cover_prefix: as in select. `topk` has no default: with N it sets the
            length of the attention, see gathered_length. A row or a document that would not get shorter is attended to in
            full, and a call of such ones only is plain causal attention: no scorer is run.
        scorer, dilation, gate: as in token_scores.
        scores: (s_qk, s_kq), float32 [B, H_kv, N], computed elsewhere; no scorer is run. With QK-norm the norms of q and k
            say nothing: pass token_scores of the tensors before it.
        cu_seqlens: token offsets of packed documents (B = 1), as in token_scores. No document sees another. In a function that
            torch.compile traces, a list is a constant, and each is compiled anew; with a tensor one graph serves all documents,
            and backward runs the forward again. A tensor on the host is read without a wait, one on the device with one in forward
            and one in backward. With a tensor there, selection, attention and group cannot be given.
        softmax_scale: of the stock attention, 1 / sqrt(d) by default.
        selection: int32 [B, H_kv, S] as select returns it; neither scores nor scorer are used.
        check_selection: whether a given selection is checked: the rows of a forest in gathered order (section (iv)), as that
            order is what makes attention causal. It takes one pass, and on CUDA waits for the device. False trusts it.
        attention: callable(q, k, v) -> [B, H, S, d] for the middle, q [B, H, S, d], k and v [B, H_kv, S, d], causal by row.
            PyTorch's causal scaled_dot_product_attention by default. Packed documents call it once for each that has rows.
        group: a ProcessGroup, or a DeviceMesh of one dimension, whose W ranks share the row: q, k, v, gate, scores and the
            result are of this rank's tokens, cut where TokenShards says; cu_seqlens are of the whole row. W divides H; and
            H_kv, or H_kv divides W. `attention` is given H/W heads of all rows; a selection cannot be given. All ranks make
            the same calls, in the same order, forwards and backwards. The bits are those of one process where those of the
            attention do not depend on the number of heads, and W <= H_kv.
        shard_offsets: [W + 1] integers, where each rank of the group begins, and N; by default ranks have equally many tokens.

    Returns:
        [B, N, H, d], the dtype of q (of autocast, where that is on).

    Raises:
        ValueError: a shape, dtype or option is wrong, or two options exclude one another; or ranks of a group were not given
            the same (on all of them, in its first calls).
    """
    name = "lighthouse_attention"
    sizes = num_levels, pooling_factor, topk, tile_topk
    check_shard_offsets(name, shard_offsets, group)
    if group is not None and context.group_size("lighthouse_attention", group) > 1:
        return attention_of_ranks(q, k, v, sizes, scorer=scorer, dilation=dilation, gate=gate, scores=scores,
                                  cover_prefix=cover_prefix, cu_seqlens=cu_seqlens, softmax_scale=softmax_scale,
                                  selection=selection, attention=attention, group=group, shard_offsets=shard_offsets)
    if without_values(cu_seqlens):
        return attention_of_any_documents(q, k, v, sizes, scorer=scorer, dilation=dilation, gate=gate, scores=scores,
                                          cover_prefix=cover_prefix, cu_seqlens=cu_seqlens, softmax_scale=softmax_scale,
                                          selection=selection, attention=attention)
    q, k, v, layout, offsets, softmax_scale = checked_arguments(name, q, k, v, sizes, cu_seqlens, softmax_scale, gate, scores, selection,
                                                                attention)
    cover_prefix = boolean(name, "cover_prefix", cover_prefix)
    check_selection = boolean(name, "check_selection", check_selection)
    if torch.compiler.is_compiling():  # topk alone may be a symbol, as N may, of which index() would make a constant
        layout = [value if value is topk and offsets is None else operator.index(value) for value in layout]
    num_rows = rows_of_documents(q, layout, offsets)
    if is_full(q, layout, num_rows) and not (selection is not None and torch.compiler.is_compiling()):
        # A graph would drop the check of a selection, whose result nothing reads.
        check_heads(name, q, k, v)
        check_unused(q, k, layout, scorer, dilation, gate, scores, offsets, selection, check_selection)
        return full_attention(name, q, k, v, offsets, softmax_scale, attention)
    q_rows, k_rows, v_rows, selected, slots = select_and_gather(
        q, k, v, layout, scorer=scorer, dilation=dilation, gate=gate, scores=scores, cover_prefix=cover_prefix,
        offsets=offsets, selection=selection, check_selection=check_selection)  # [B, H or H_kv, S, d]
    o_rows = attend(name, q_rows, k_rows, v_rows, num_rows or [q_rows.shape[2]], softmax_scale, attention)
    if attention is not None:
        check_transforms(name, o_rows)
    return scatter_rows(o_rows, selected, slots, q.shape[1], layout, offsets)


def checked_arguments(operation, q, k, v, sizes, cu_seqlens, softmax_scale, gate, scores, selection, attention):
    """q, k, v, layout, the offsets of documents and softmax_scale, as the rest takes them."""
    q, k, v, softmax_scale = checked_inputs(operation, q, k, v, softmax_scale, attention)
    check_options(operation, q, gate, scores, selection)
    check_transforms(operation, q, k, v)
    if torch.compiler.is_compiling():
        check_heads(operation, q, k, v)
    return q, k, v, layout_of(operation, *sizes), host_offsets(operation, cu_seqlens), softmax_scale


def checked_inputs(operation, q, k, v, softmax_scale, attention):
    """q, k, v and softmax_scale of an attention in the middle."""
    check_qkv(operation, q, k, v)
    softmax_scale = attention_scale(operation, softmax_scale)
    check_attention(operation, attention, softmax_scale)
    if attention is None or isinstance(attention, Stock):
        q, k, v = under_autocast(q, k, v)
    return q, k, v, softmax_scale


def check_shard_offsets(operation, shard_offsets, group):
    require(shard_offsets is None or group is not None, f"{operation}: shard_offsets are given, but no group, whose ranks they are of; "
            "give both, or leave shard_offsets out")


def attend(operation, q, k, v, num_rows, softmax_scale, attention):
    """The attention in the middle, of documents of `num_rows` rows: [B, H, S, d]."""
    if attention is None:
        return stock_attention(q, k, v, num_rows, softmax_scale)
    return checked_rows(operation, attend_each(attention, q, k, v, num_rows), q)


def full_attention(operation, q, k, v, offsets, softmax_scale, attention):
    """Causal attention over all tokens, [B, N, H, d]; documents apart."""
    by_row = [x.transpose(1, 2) for x in (q, k, v)]
    num_tokens = [q.shape[1]] if offsets is None else context.lengths(offsets)
    out = attend(operation, *by_row, num_tokens, softmax_scale, attention)
    return (with_any_gradient(out) if attention is None else out).transpose(1, 2)


def attention_of_any_documents(q, k, v, sizes, *, scorer, dilation, gate, scores, cover_prefix, cu_seqlens, softmax_scale,
                               selection, attention):
    """lighthouse_attention in a traced graph, which does not know the documents: the operator of packed.py, [1, N, H, d]."""
    name = "lighthouse_attention"
    for option, given in (("selection", selection), ("attention", attention)):
        require(given is None, f"{name}: cu_seqlens is a tensor, whose values a compiled graph does not know, and `{option}` is "
                f"given; leave that out, or pass a list (cu_seqlens.tolist() outside of the compiled function)")
    q, k, v, layout, _, softmax_scale = checked_arguments(name, q, k, v, sizes, None, softmax_scale, gate, scores, selection, attention)
    cover_prefix = boolean(name, "cover_prefix", cover_prefix)
    if scores is None:
        check_scorer(scorer, integer("token_scores", "dilation", dilation), gate)
    gate, s_qk, s_kq = (x if x is None else x.detach() for x in (gate, *(scores or (None, None))))
    return ops._packed_attention(q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, cover_prefix, softmax_scale)


def attention_of_ranks(q, k, v, sizes, *, scorer, dilation, gate, scores, cover_prefix, cu_seqlens, softmax_scale, selection,
                       attention, group, shard_offsets):
    """lighthouse_attention of a row that the ranks of a group share."""
    name = "lighthouse_attention"

    def check():
        require(selection is None, f"{name}: a selection is given to ranks that share a row; leave it out, or `group`")
        *qkv, layout, offsets, scale = checked_arguments(name, q, k, v, sizes, cu_seqlens, softmax_scale, gate, scores, selection,
                                                         attention)
        layout, cover = [operator.index(size) for size in layout], boolean(name, "cover_prefix", cover_prefix)
        check_heads(name, *qkv)
        check_scorer(scorer, integer("token_scores", "dilation", dilation), gate)
        if offsets is not None:
            check_packed(name, q)
        if scores is not None:
            check_scores_shape(q, k, scores)
        check_gate_shape(q, gate)
        share, part, num_rows = context.plan_of(name, group, *map(operator.index, (q.shape[1], q.shape[2], k.shape[2])), layout,
                                                offsets, host_offsets(name, shard_offsets))
        alike = dict(batch=q.shape[0], num_heads=q.shape[2], num_kv_heads=k.shape[2], head_dim=q.shape[3], dtype=qkv[0].dtype,
                     **dict(zip(("num_levels", "pooling_factor", "topk", "tile_topk"), layout)), scorer=scorer, dilation=dilation,
                     cover_prefix=cover, softmax_scale=scale, cu_seqlens=offsets, shard_offsets=share.tokens,
                     with_scores=scores is not None, with_gradient=torch.is_grad_enabled() and [x.requires_grad for x in qkv])
        return (qkv, offsets, share, num_rows, part, scale, cover), alike

    (q, k, v), offsets, share, num_rows, part, softmax_scale, cover_prefix = context.agreed(name, group, q, check)
    middle = functools.partial(attend, name, num_rows=num_rows, softmax_scale=softmax_scale, attention=attention)
    if part is None:  # of every document all tokens
        by_row = [x.transpose(1, 2) for x in (q, k, v)]
        return context.attend_by_heads(middle, *by_row, share.tokens, share).transpose(1, 2)
    if scores is None and scorer != "norm":
        scorer_of_heads = functools.partial(token_scores, scorer=scorer, dilation=dilation, cu_seqlens=offsets)
        scores, gate = context.scores_by_heads(scorer_of_heads, q, k, v, gate, share), None
    *rows, selected, slots = select_and_gather(
        q, k, v, list(part.layout), scorer=scorer, dilation=dilation, gate=gate, scores=scores, cover_prefix=cover_prefix,
        offsets=offsets, selection=None, check_selection=False)
    o_rows = context.attend_by_heads(middle, *rows, part.rows, share)
    return context.Scatter.apply(o_rows, selected, slots, q.shape[1], part, offsets, share)


def check_unused(q, k, layout, scorer, dilation, gate, scores, offsets, selection, check_selection):
    """What a call gave for a selection that is not made."""
    if selection is not None:
        ops._invert_selection(selection.contiguous(), q.shape[1], layout, offsets, check_selection)
    elif scores is not None:
        check_scores_shape(q, k, scores)
    else:
        check_scorer(scorer, integer("token_scores", "dilation", dilation), gate)
        check_gate_shape(q, gate)


def check_gate_shape(q, gate):
    if gate is not None and gate.shape != q.shape[:3]:
        raise ValueError(f"token_scores: gate has shape {list(gate.shape)}; it must be [batch, seq_len, num_heads], here "
                         f"{list(q.shape[:3])}")


def check_scores_shape(q, k, scores):
    shape = [q.shape[0], k.shape[2], q.shape[1]]
    require(list(scores[0].shape) == shape, f"lighthouse_attention: s_qk has shape {list(scores[0].shape)}; it must be "
            f"[batch, num_kv_heads, seq_len], here {shape}")


def select_and_gather(q, k, v, layout, *, scorer, dilation, gate, scores, cover_prefix, offsets, selection,
                      check_selection):
    """Sections (i) to (iv): q_rows, k_rows, v_rows, selection, slots."""
    if selection is not None or scores is not None or scorer == "dilated":  # else the first operator has them all
        check_heads("lighthouse_attention", q, k, v)
    if selection is not None:
        selected = selection.contiguous()
        slots = ops._invert_selection(selected, q.shape[1], layout, offsets, check_selection)
    elif scores is not None:
        check_scores_shape(q, k, scores)
        selected, slots = ops._select_entries(scores[0].detach(), scores[1].detach(), layout, cover_prefix, offsets)
    else:
        dilation = integer("token_scores", "dilation", dilation)
        check_scorer(scorer, dilation, gate)
        if scorer == "norm":
            return gather_by_norm(q, k, v, layout, cover_prefix, offsets)
        s_qk, s_kq = token_scores(q, k, v, scorer=scorer, dilation=dilation, gate=gate, cu_seqlens=offsets)
        selected, slots = ops._select_entries(s_qk, s_kq, layout, cover_prefix, offsets)
    return *gather_rows(q, k, v, selected, slots, layout, offsets), selected, slots


def check_options(name, q, gate, scores, selection):
    instead = "selection" if selection is not None else "scores"
    require(gate is None or (selection is None and scores is None), f"{name}: a gate is given, but {instead} too, so no "
            "scorer is run; leave one out")
    require(scores is None or (isinstance(scores, (tuple, list)) and len(scores) == 2), f"{name}: scores is a "
            f"{type(scores).__name__}; it must be the pair (s_qk, s_kq), as token_scores returns it")
    for number, x in enumerate(() if scores is None else scores):
        check_tensor(name, ("s_qk", "s_kq")[number], x, "[batch, num_kv_heads, seq_len], float32", q, "q")
    if selection is not None:
        check_tensor(name, "selection", selection, "[batch, num_kv_heads, gathered_len], int32", q, "q")


def checked_rows(operation, out, q_rows):
    """The result of a caller's attention."""
    require(isinstance(out, torch.Tensor), f"{operation}: the result of `attention` is a {type(out).__name__}; it "
            "must be a tensor")
    require(out.shape == q_rows.shape, f"{operation}: the result of `attention` has shape {list(out.shape)}; it "
            f"must be [batch, num_heads, rows, head_dim], here {list(q_rows.shape)}")
    require(out.device == q_rows.device, f"{operation}: the result of `attention` is on {out.device}, but it was given tensors on "
            f"{q_rows.device}; move it there")
    require(out.dtype == q_rows.dtype, f"{operation}: the result of `attention` is {out.dtype}, but it was given "
            f"{q_rows.dtype}; cast it to that")
    require(out.stride(3) == 1 or out.shape[3] == 1, f"{operation}: the channels of the result of `attention` have "
            f"stride {out.stride(3)}; they must be contiguous (stride 1)")
    return out
