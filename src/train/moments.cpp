#include "train/moments.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <vector>

namespace lighthouse {

NamedTensors whole_moments(const NamedTensors& parameters, const AdamW& optimizer) {
  NamedTensors whole{optimizer.state().front()};
  for (const auto& [name, parameter] : parameters) {
    const at::TensorOptions options = parameter.options().device(at::kCPU).requires_grad(false);
    whole.emplace_back(name + ".exp_avg", at::empty_like(parameter, options));
    whole.emplace_back(name + ".exp_avg_sq", at::empty_like(parameter, options));
  }
  return whole;
}

void gather_moments(const GradientExchange& exchange, const AdamW& optimizer, const NamedTensors& whole) {
  const at::NoGradGuard no_grad;
  std::vector<const AdamW::Moments*> of_piece(exchange.pieces().size(), nullptr);
  auto next = optimizer.moments().begin();
  for (size_t piece = 0; piece < of_piece.size(); ++piece) {
    if (exchange.owns(piece)) of_piece[piece] = &*next++;
  }
  const auto gather = [&](at::Tensor AdamW::Moments::*which, size_t first) {
    exchange.share([&](size_t piece) { return of_piece[piece]->*which; },
                   [&](size_t index, const at::Tensor& elements) {
                     if (whole.empty()) return;
                     const Piece& piece = exchange.pieces()[index];
                     const at::Tensor& of_parameter = whole[first + 2 * static_cast<size_t>(piece.parameter)].second;
                     of_parameter.view({-1}).slice(0, piece.begin, piece.end).copy_(elements);
                   },
                   "moments");
  };
  gather(&AdamW::Moments::exp_avg, 1);  // behind "step"
  gather(&AdamW::Moments::exp_avg_sq, 2);
}

}  // namespace lighthouse
