"""How a row of tokens is cut for the ranks of a group."""

import torch

from . import library
from .context import process_group
from .errors import require
from .functional import host_offsets, integer, layout_of


class TokenShards:
    """Where the ranks of a group cut a row of tokens: at ends of tiles, next to equal parts. A model whose layers have other
    options fits too, if all have as many tiles (topk / tile_topk) and levels; dense layers take any cut.

    Args:
        seq_len: N, of the whole row.
        group: a ProcessGroup, or a DeviceMesh of one dimension.
        topk, num_levels, pooling_factor, tile_topk, cu_seqlens: as in lighthouse_attention.

    Attributes:
        offsets: [W + 1], where each rank begins, and N.

    Raises:
        ValueError: an argument is out of range, or there are fewer tiles than ranks.
    """

    def __init__(self, seq_len, group, *, topk, num_levels=3, pooling_factor=4, tile_topk=128, cu_seqlens=None):
        name = "TokenShards"
        group = process_group(name, group)
        layout = layout_of(name, num_levels, pooling_factor, topk, tile_topk)
        seq_len, cu_seqlens = integer(name, "seq_len", seq_len), host_offsets(name, cu_seqlens)
        self.offsets = library.token_offsets(name, seq_len, layout, cu_seqlens, group.size())
        self.begin, self.end = self.offsets[group.rank():group.rank() + 2]
        self.documents = cu_seqlens or [0, seq_len]

    def take(self, x, dim=1):
        """This rank's part of x, which has the whole row along `dim`: a view."""
        require(x.shape[dim] == self.offsets[-1], f"TokenShards: dimension {dim} of a tensor has {x.shape[dim]} elements, but the "
                f"row has {self.offsets[-1]} tokens")
        return x.narrow(dim, self.begin, self.end - self.begin)

    def positions(self, device=None):
        """[1, N_r] int64: where this rank's tokens are in their documents, for RoPE."""
        offsets = torch.tensor(self.documents, device=device)
        tokens = torch.arange(self.begin, self.end, device=device)
        return (tokens - offsets[torch.searchsorted(offsets, tokens, right=True) - 1])[None]
