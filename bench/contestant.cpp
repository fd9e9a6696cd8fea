#include "bench/contestant.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

namespace lighthouse::bench {
namespace {

/// Normal inputs, the same on every run: of [B, N, H, D], or with heads before tokens.
class RandomInputs {
 public:
  RandomInputs(const BenchOptions& options, int64_t length, const Device& device)
      : options_(options), length_(length), device_(device), generator_(seeded(device.torch_device())) {}

  Inputs by_token(bool with_gate) {
    const auto shape = [&](int64_t heads) { return Shape{options_.batch, length_, heads, options_.head_dim}; };
    Inputs inputs = make(shape);
    if (with_gate) inputs.gate = at::log_sigmoid(normal({options_.batch, length_, options_.num_heads})) / 16;
    return inputs;
  }
  Inputs by_head() {
    return make([&](int64_t heads) { return Shape{options_.batch, heads, length_, options_.head_dim}; });
  }

 private:
  using Shape = std::vector<int64_t>;

  static at::Generator seeded(at::Device device) {
    constexpr uint64_t kSeed = 1;
    at::Generator generator = at::globalContext().defaultGenerator(device).clone();
    generator.set_current_seed(kSeed);
    return generator;
  }

  at::Tensor normal(const Shape& shape) {
    return at::randn(shape, generator_, at::TensorOptions(at::kFloat).device(device_.torch_device()));
  }

  template <typename ShapeOf>
  Inputs make(const ShapeOf& shape_of) {
    const auto random = [&](int64_t heads) { return normal(shape_of(heads)).to(dtype_of(options_)); };
    Inputs inputs{random(options_.num_heads),
                  random(options_.num_kv_heads),
                  random(options_.num_kv_heads),
                  random(options_.num_heads),
                  {}};
    for (at::Tensor* x : {&inputs.q, &inputs.k, &inputs.v}) x->requires_grad_();
    return inputs;
  }

  const BenchOptions& options_;
  int64_t length_;
  const Device& device_;
  at::Generator generator_;
};

/// As many sets as it takes for none to be found in the cache.
template <typename Make>
std::vector<Inputs> input_sets(const Device& device, const Make& make) {
  std::vector<Inputs> sets{make()};
  const int64_t num_sets = device.num_copies(sets.front().num_bytes());
  while (static_cast<int64_t>(sets.size()) < num_sets) sets.push_back(make());
  return sets;
}

}  // namespace

int64_t Inputs::num_bytes() const {
  return static_cast<int64_t>(q.nbytes() + k.nbytes() + v.nbytes() + dout.nbytes() +
                              (gate.defined() ? gate.nbytes() : 0));
}

Contestant::Contestant(std::vector<Inputs> sets, Attention attention)
    : sets_(std::move(sets)), attention_(std::move(attention)) {}

const Inputs& Contestant::next() { return sets_[turn_++ % sets_.size()]; }

void Contestant::forward() {
  const at::NoGradGuard no_grad;
  attention_(next());
}

void Contestant::forward_and_backward() {
  const Inputs& inputs = next();
  gradients(inputs, attention_(inputs));
}

std::vector<at::Tensor> Contestant::gradients(const Inputs& inputs, const at::Tensor& out, bool keep_graph) {
  return torch::autograd::grad({out}, {inputs.q, inputs.k, inputs.v}, {inputs.dout}, keep_graph);
}

AttentionOptions attention_options(const AttentionCase& attention_case, const Inputs& inputs) {
  AttentionOptions attention;
  attention.selection_config = attention_case.selection;
  attention.score_config = attention_case.score;
  if (inputs.gate.defined()) attention.gate = inputs.gate;
  return attention;
}

Contestant lighthouse_contestant(const BenchOptions& options, const AttentionCase& attention_case,
                                 const Device& device) {
  RandomInputs random(options, attention_case.seq_len, device);
  const bool with_gate = attention_case.score.scorer == Scorer::kGla;
  return {input_sets(device, [&] { return random.by_token(with_gate); }), [attention_case](const Inputs& inputs) {
            return lighthouse_attention(inputs.q, inputs.k, inputs.v, attention_options(attention_case, inputs));
          }};
}

Contestant stock_contestant(const BenchOptions& options, int64_t length, const Device& device) {
  RandomInputs random(options, length, device);
  return {input_sets(device, [&] { return random.by_head(); }),
          [](const Inputs& inputs) { return causal_attention(inputs.q, inputs.k, inputs.v); }};
}

}  // namespace lighthouse::bench
