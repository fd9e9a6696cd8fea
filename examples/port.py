"""This package as scripts/check_port.py wants an implementation: python scripts/check_port.py examples.port:lighthouse"""
import torch
from lighthouse_attention import lighthouse_attention, select, token_scores


def lighthouse(q, k, v, *, grad_out, scorer, dilation, cover_prefix, **layout):
    q, k, v = (torch.from_numpy(x.copy()).requires_grad_() for x in (q, k, v))
    scores = token_scores(q, k, v, scorer=scorer, dilation=dilation)
    selection = select(*scores, cover_prefix=cover_prefix, **layout)
    o = lighthouse_attention(q, k, v, scores=scores, cover_prefix=cover_prefix, **layout)
    dq, dk, dv = torch.autograd.grad(o, (q, k, v), torch.from_numpy(grad_out.copy()))
    return dict(selection=selection, o=o.detach(), dq=dq, dk=dk, dv=dv)
