#include "ops/cudnn_blocks.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <vector>

#include "ops/cudnn_backward.h"

namespace lighthouse::ops {
namespace {

struct Block {
  int64_t begin, size;
  at::Tensor of(const at::Tensor& x) const { return x.narrow(2, begin, size); }  // [B, H, S, D]
};

/// All of one size, but for the last.
std::vector<Block> blocks_of(const at::Tensor& q, const at::Tensor& k, const CudnnLimits& limits) {
  const int64_t seq_len = q.size(2);
  const int64_t size = limits.block_rows(seq_len, q.size(1) / k.size(1));
  std::vector<Block> blocks;
  for (int64_t begin = 0; begin < seq_len; begin += size) blocks.push_back({begin, std::min(size, seq_len - begin)});
  return blocks;
}

}  // namespace

bool blockwise_backward_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double softmax_scale,
                             const CudnnLimits& limits) {
  const std::vector<Block> blocks = blocks_of(q, k, limits);
  const auto runs = [&](const Block& queries, const Block& keys, bool causal) {
    return cudnn_backward_runs(queries.of(q), keys.of(k), keys.of(v), {softmax_scale, causal, limits.slice_bytes});
  };
  const Block& first = blocks.front();
  const Block& last = blocks.back();  // the only one of another size
  if (!runs(first, first, true)) return false;
  if (blocks.size() == 1) return true;
  return runs(last, last, true) && runs(last, first, false) && (blocks.size() == 2 || runs(first, first, false));
}

ThreeTensors blockwise_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                                const at::Tensor& logsumexp, const at::Tensor& dout, double softmax_scale,
                                const CudnnLimits& limits) {
  const std::vector<Block> blocks = blocks_of(q, k, limits);
  if (blocks.size() == 1) {
    return cudnn_backward(q, k, v, o, logsumexp, dout, {softmax_scale, /*causal=*/true, limits.slice_bytes});
  }
  const at::Tensor by_row = logsumexp.reshape({q.size(0), q.size(1), q.size(2), 1});
  const at::Tensor dq = at::zeros_like(q, at::kFloat);
  const at::Tensor dk = at::empty_like(k);
  const at::Tensor dv = at::empty_like(v);
  for (size_t j = 0; j < blocks.size(); ++j) {
    const Block& keys = blocks[j];
    at::Tensor dk_sum, dv_sum;
    for (size_t i = j; i < blocks.size(); ++i) {
      const Block& queries = blocks[i];
      const CudnnCall call{softmax_scale, /*causal=*/i == j, limits.slice_bytes};
      const auto [dq_part, dk_part, dv_part] = cudnn_backward(queries.of(q), keys.of(k), keys.of(v), queries.of(o),
                                                              queries.of(by_row), queries.of(dout), call);
      queries.of(dq).add_(dq_part);
      dk_sum = i == j ? dk_part.to(at::kFloat) : dk_sum.add_(dk_part);
      dv_sum = i == j ? dv_part.to(at::kFloat) : dv_sum.add_(dv_part);
    }
    keys.of(dk).copy_(dk_sum);
    keys.of(dv).copy_(dv_sum);
  }
  return {dq.to(q.scalar_type()), dk, dv};
}

}  // namespace lighthouse::ops
