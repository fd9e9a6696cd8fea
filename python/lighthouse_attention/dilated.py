"""Scorer "dilated" (section (ii)): stock causal attention within each residue class of tokens, then norms."""

import operator

import torch
import torch.nn.functional as F

from .inner import stock_attention
from .operators import ops


def residue_classes(length, dilation):
    """(first token, classes, tokens of each) of `length` tokens: those that come first may have a token more."""
    size, longer = length // dilation, operator.index(length % dilation)  # N may be a symbol in a traced graph
    groups = [(0, longer, size + 1), (longer, dilation - longer, size)]
    return [(first, classes, tokens) for first, classes, tokens in groups if classes > 0 and tokens > 0]


def by_class(x, first, classes, size, dilation):
    """A view of x [N, ...] as [classes, size, ...]."""
    return x.narrow(0, first, (size - 1) * dilation + classes).unfold(0, classes, dilation).movedim(-1, 0)


def attention_norms(query, key, value, num_rows):
    """||SDPA(query, key, value)|| of [batch, length, heads, d] -> [batch, heads, length]."""
    out = stock_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), num_rows)
    return ops._token_norms(out.transpose(1, 2), query.shape[2])


def attention_scores(q, k, v, num_rows):
    """Both scores [batch, H_kv, length]. Query heads take turns, one of every group at a time, so that keys and values are
    never copied for each of them."""
    group = q.shape[2] // k.shape[2]
    s_qk = s_kq = None
    for member in range(group):
        query = q[:, :, member::group]
        norms = attention_norms(query, k, v, num_rows), attention_norms(k, query, v, num_rows)
        s_qk, s_kq = norms if member == 0 else (torch.fmax(s_qk, norms[0]), torch.fmax(s_kq, norms[1]))
    return s_qk, s_kq


def class_positions(like, cu_seqlens, dilation):
    """Where every token goes when the residue classes of all documents are laid one after another, int64 [N], from tensor
    operations only: nothing waits for the device."""
    offsets = ops._offsets_like(like, cu_seqlens).long()
    token = torch.arange(cu_seqlens[-1], device=like.device)
    document = torch.searchsorted(offsets, token, right=True) - 1
    begin = offsets[document]
    length = offsets[document + 1] - begin
    local = token - begin
    residue = local % dilation
    return begin + residue * (length // dilation) + torch.minimum(residue, length % dilation) + local // dilation


def dilated_scores_packed(q, k, v, dilation, cu_seqlens):
    """A packed row on CUDA: two calls of varlen attention for each member of a group of heads, on tokens by class."""
    lengths = [end - begin for begin, end in zip(cu_seqlens, cu_seqlens[1:])]
    num_rows = [(length - residue + dilation - 1) // dilation for length in lengths for residue in range(dilation)]
    positions = class_positions(q, cu_seqlens, dilation)
    order = torch.empty_like(positions).scatter_(0, positions, torch.arange(cu_seqlens[-1], device=q.device))
    scores = attention_scores(*(x.index_select(1, order) for x in (q, k, v)), num_rows)
    return tuple(score.index_select(2, positions) for score in scores)


def document_scores(q, k, v, dilation):
    """Scores [H_kv, length] of one document of one row by views of its residue classes: q [length, H, d]."""
    length = q.shape[0]
    longest = -(-length // dilation)
    parts = []
    for first, classes, size in residue_classes(length, dilation):
        scores = attention_scores(*(by_class(x, first, classes, size, dilation) for x in (q, k, v)), [size])
        parts.append([F.pad(score, (0, longest - size)) for score in scores])  # [classes, H_kv, longest]
    # Token t is number t // dilation of class t % dilation. Writing through a view of some classes would be shorter, but a
    # traced graph (torch 2.11) then has zeros in the other classes.
    return [torch.cat(score).permute(1, 2, 0).flatten(1)[:, :length] for score in zip(*parts)]


def dilated_scores(q, k, v, dilation, cu_seqlens):
    """(s_qk, s_kq), fp32 [B, H_kv, N]."""
    if cu_seqlens is not None and q.is_cuda:
        return dilated_scores_packed(q, k, v, dilation, cu_seqlens)
    bounds = [0, q.shape[1]] if cu_seqlens is None else cu_seqlens
    rows = []
    for batch in range(q.shape[0]):
        documents = [document_scores(*(x[batch, begin:end] for x in (q, k, v)), dilation)
                     for begin, end in zip(bounds, bounds[1:]) if end > begin]
        rows.append([torch.cat(score, 1) for score in zip(*documents)])
    return tuple(torch.stack(score) for score in zip(*rows))
