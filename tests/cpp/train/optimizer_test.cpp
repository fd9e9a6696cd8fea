#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "cpp/io/temporary_folder.h"
#include "cpp/train/train_support.h"
#include "lighthouse/check.h"
#include "model/page_locked.h"
#include "model/random.h"
#include "support/test_device.h"
#include "train/host_transfer.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr double kEps = std::numeric_limits<float>::epsilon();

/// A matrix, a vector, and a matrix with one row, with values in +-[0.5, 1.5): no cancellation hides in small numbers.
float test_value(const std::string& name, uint64_t index) {
  const double uniform = random_uniform(random_stream(7, name), index);
  return static_cast<float>(uniform < 0.5 ? -0.5 - 2 * uniform : 2 * uniform - 0.5);
}

void fill(const at::Tensor& tensor, const std::string& name) {
  auto* const values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = test_value(name, static_cast<uint64_t>(i));
}

NamedTensors make_parameters() {
  NamedTensors parameters;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    at::Tensor tensor = at::empty(shape, at::kFloat);
    fill(tensor, name);
    parameters.emplace_back(name, tensor.set_requires_grad(true));
  };
  add("matrix", {37, 19});
  add("norm", {19});
  add("row", {1, 5});
  return parameters;
}

void set_gradients(const NamedTensors& parameters, int64_t step) {
  for (const auto& [name, parameter] : parameters) {
    at::Tensor gradient = at::empty(parameter.sizes(), at::kFloat);
    fill(gradient, name + ".grad" + std::to_string(step));
    parameter.mutable_grad() = gradient;
  }
}

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kDouble).flatten().contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// optimizer.h's formula in double, for one element that begins as `w`.
struct ExactAdamW {
  const OptimizerConfig& config;
  double weight_decay;
  double w, m = 0, v = 0;
  int t = 0;

  void step(double rate, double g) {
    ++t;
    w -= rate * weight_decay * w;
    m = config.beta1 * m + (1 - config.beta1) * g;
    v = config.beta2 * v + (1 - config.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(config.beta1, t));
    const double v_hat = v / (1 - std::pow(config.beta2, t));
    w -= rate * m_hat / (std::sqrt(v_hat) + config.eps);
  }
};

TEST(AdamW, IsThePlainFormula) {
  OptimizerConfig config;
  config.weight_decay = 0.3;
  config.eps = 0.1;  // large enough to see where it stands
  const NamedTensors parameters = make_parameters();
  std::vector<std::vector<ExactAdamW>> exact;
  for (const auto& [name, parameter] : parameters) {
    exact.emplace_back();
    for (const double w : values_of(parameter)) {
      exact.back().push_back({config, parameter.dim() >= 2 ? 0.3 : 0, w});
    }
  }
  AdamW optimizer(parameters, config);
  double bound = 0;
  for (int64_t step = 0; step < 10; ++step) {
    const double rate = 0.01 * static_cast<double>(step + 1);
    set_gradients(parameters, step);
    optimizer.step(rate);
    // Gradients are within [0.5, 1.5], so the update u is within 3. m is a sum whose absolute error is at most
    // 3 eps / (1 - beta1) = 30 eps before it is divided by sqrt(v) >= 0.5; v has a relative error of 3 eps a step; ten
    // more roundings of u. A weight, within 4, is rounded twice a step.
    bound += (rate * (60 + 1.5 * 3 * static_cast<double>(step + 1) + 30) + 2 * 4) * kEps;
    for (size_t p = 0; p < parameters.size(); ++p) {
      const std::vector<double> actual = values_of(parameters[p].second);
      const std::vector<double> gradient = values_of(parameters[p].second.grad());
      for (size_t i = 0; i < actual.size(); ++i) {
        exact[p][i].step(rate, gradient[i]);
        ASSERT_NEAR(actual[i], exact[p][i].w, bound) << parameters[p].first << "[" << i << "] after step " << step;
      }
    }
  }
}

TEST(AdamW, StateGoesOnWithTheSameBits) {
  const OptimizerConfig config;
  const NamedTensors unbroken = make_parameters();
  AdamW optimizer(unbroken, config);
  const auto run = [&](AdamW& which, const NamedTensors& parameters, int64_t begin, int64_t end) {
    for (int64_t step = begin; step < end; ++step) {
      set_gradients(parameters, step);
      which.step(0.01);
    }
  };
  run(optimizer, unbroken, 0, 3);
  const NamedTensors resumed = make_parameters();
  for (size_t p = 0; p < resumed.size(); ++p) {
    const at::NoGradGuard no_grad;
    resumed[p].second.copy_(unbroken[p].second);
  }
  AdamW second(resumed, config);
  second.load_state(copies(optimizer.state()));
  run(optimizer, unbroken, 3, 6);
  run(second, resumed, 3, 6);
  EXPECT_TRUE(same_tensors(resumed, unbroken));
  EXPECT_TRUE(same_tensors(second.state(), optimizer.state()));
  EXPECT_EQ(optimizer.state().front().second.item<float>(), 6);
}

TEST(AdamW, StateOfAnotherModelIsRefusedAndChangesNothing) {
  const NamedTensors parameters = make_parameters();
  AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  optimizer.step(0.01);
  const NamedTensors before = copies(optimizer.state());
  const auto refused = [&](const std::function<void(NamedTensors&)>& spoil) {
    NamedTensors state = copies(before);
    for (const auto& [name, tensor] : state) tensor.zero_();
    spoil(state);
    std::string message = message_of<InvalidArgument>([&] { optimizer.load_state(state); });
    EXPECT_TRUE(same_tensors(optimizer.state(), before));
    return message;
  };
  EXPECT_THAT(refused([](NamedTensors& state) { state.pop_back(); }), HasSubstr("row.exp_avg_sq"));
  EXPECT_THAT(refused([](NamedTensors& state) { state[3].second = at::zeros({20}); }),
              AllOf(HasSubstr("norm.exp_avg"), HasSubstr("[20]"), HasSubstr("[19]")));
  EXPECT_THAT(refused([](NamedTensors& state) { state[3].second = at::zeros({19}, at::kDouble); }),
              HasSubstr("norm.exp_avg"));
  EXPECT_THAT(refused([](NamedTensors& state) { state.emplace_back("other", at::zeros({1})); }), HasSubstr("8"));
}

TEST(AdamW, ParameterWithoutGradientIsNamedAndNothingMoves) {
  const NamedTensors parameters = make_parameters();
  AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  parameters[1].second.mutable_grad().reset();
  EXPECT_THAT(message_of<InvalidArgument>([&] { optimizer.gradient_norms(); }), HasSubstr("'norm'"));
}

/// Of all of them.
double gradient_norm(const AdamW& optimizer) {
  return at::linalg_vector_norm(optimizer.gradient_norms(), 2).item<double>();
}

TEST(AdamW, PiecesHaveTheBitsOfTheWhole) {
  const auto matrix = [] {
    at::Tensor tensor = at::empty({50, 67}, at::kFloat);
    fill(tensor, "matrix");
    return NamedTensors{{"matrix", tensor.set_requires_grad(true)}};
  };
  const NamedTensors whole = matrix(), cut = matrix();
  AdamW of_whole(whole, {});
  // Two owners, of whom one has two pieces, the last with an end that no vector fits.
  AdamW first(cut, {}, {{0, 0, 128}, {0, 1024, 3350}}), second(cut, {}, {{0, 128, 1024}});
  for (int64_t step = 0; step < 5; ++step) {
    set_gradients(whole, step);
    set_gradients(cut, step);
    for (AdamW* optimizer : {&of_whole, &first, &second}) optimizer->step(0.01);
  }
  EXPECT_TRUE(same_tensors(cut, NamedTensors{{"matrix", whole[0].second}}));
  const at::Tensor squares = of_whole.state()[2].second.flatten();
  EXPECT_TRUE(same_bits(first.moments()[1].exp_avg_sq, squares.slice(0, 1024, 3350)));
  EXPECT_TRUE(same_bits(second.moments()[0].exp_avg_sq, squares.slice(0, 128, 1024)));
  EXPECT_EQ(first.state().size(), 1) << "it owns no parameter";

  AdamW loaded(cut, {}, {{0, 128, 1024}});
  loaded.load_state(of_whole.state());
  EXPECT_TRUE(same_bits(loaded.moments()[0].exp_avg, second.moments()[0].exp_avg));
  EXPECT_THROW(loaded.load_state(second.state()), InvalidArgument);
}

/// The same values, matrices on the host, with copies for products.
HostWeights on_host_of(const NamedTensors& parameters) {
  HostWeights weights;
  for (const auto& [name, parameter] : parameters) {
    const at::Tensor value = parameter.detach();
    const bool matrix = value.dim() == 2;
    weights.values.emplace_back(name, matrix ? page_locked(value.cpu().clone(), test_device()) : value);
    weights.casts.push_back(matrix ? at::empty(value.sizes(), value.options().dtype(at::kBFloat16)) : at::Tensor());
  }
  return weights;
}

// More than one part, the last with an end that no vector fits.
TEST(Moments, OnTheHostTheUpdatesHaveTheSameBits) {
  const OptimizerConfig config;
  const int64_t count = kTransferPartElements + 77;
  const auto parameters = [&] {
    NamedTensors made;
    for (const auto& [name, size] : {std::pair{"long", count}, {"short", int64_t{5}}}) {
      const at::Tensor values = at::linspace(-1, 1, size, at::TensorOptions(test_device()).dtype(at::kFloat));
      made.emplace_back(name, values.view({1, size}).contiguous().set_requires_grad(true));
    }
    made.emplace_back("norm",
                      at::ones({19}, at::TensorOptions(test_device()).dtype(at::kFloat)).set_requires_grad(true));
    return made;
  };
  const std::vector<Piece> all = {{0, 0, count}, {1, 0, 5}, {2, 0, 19}};
  const NamedTensors there = parameters(), here = parameters();
  AdamW on_device(there, config, all), on_host(here, config, all, MomentPlace::kHost);
  const auto step = [&](AdamW& optimizer, const NamedTensors& of, int64_t number) {
    for (const auto& [name, parameter] : of) {
      parameter.mutable_grad() = (parameter.detach() * 3 + static_cast<double>(number)).sin();
    }
    optimizer.step(0.01);
  };
  for (int64_t number = 0; number < 3; ++number) {
    step(on_device, there, number);
    step(on_host, here, number);
  }
  ASSERT_TRUE(same_tensors(here, there));
  for (const auto& [name, tensor] : on_host.state()) EXPECT_TRUE(tensor.is_cpu() || name == "step") << name;
  EXPECT_TRUE(same_tensors(on_host.state(), on_device.state()));

  // The matrices as well.
  const NamedTensors gradients = parameters(), values = parameters();
  const HostWeights host_weights = on_host_of(values);
  AdamW all_on_host(gradients, config, all, MomentPlace::kHost, host_weights);
  for (int64_t number = 0; number < 3; ++number) {
    for (size_t i = 0; i < values.size(); ++i) {
      const at::Tensor value = host_weights.values[i].second.to(test_device());
      gradients[i].second.mutable_grad() = (value * 3 + static_cast<double>(number)).sin();
    }
    all_on_host.step(0.01);
  }
  EXPECT_TRUE(same_tensors(all_on_host.state(), on_device.state()));
  EXPECT_TRUE(same_tensors(gradients, parameters())) << "they are read by nobody";
  for (size_t i = 0; i < values.size(); ++i) {
    const auto& [name, value] = host_weights.values[i];
    EXPECT_TRUE(same_bits(value.cpu(), there[i].second.detach().cpu())) << name;
    if (value.dim() == 1) continue;
    EXPECT_TRUE(same_bits(host_weights.casts[i].cpu(), value.to(at::kBFloat16))) << name;
    EXPECT_EQ(value.unsafeGetTensorImpl()->version_counter().current_version(), 0) << name << " is not cast again";
  }

  // What one has saved the other goes on from.
  const NamedTensors later = parameters();
  {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < later.size(); ++i) later[i].second.copy_(here[i].second);
  }
  AdamW resumed(later, config, all);
  resumed.load_ranges(on_host.ranges());
  step(resumed, later, 3);
  step(on_host, here, 3);
  EXPECT_TRUE(same_tensors(later, here));
  EXPECT_TRUE(same_tensors(resumed.state(), on_host.state()));
}

TEST(Moments, PassInPartsThatCoverThem) {
  const auto filled = [](double value) {
    std::vector<at::Tensor> tensors;
    for (const int64_t size : {130, 64, 1}) tensors.push_back(host_zeros({size}, test_device()).fill_(value));
    return tensors;
  };
  const std::vector<at::Tensor> first = filled(1), second = filled(2);
  std::vector<std::array<int64_t, 3>> seen;
  pass_through(
      {first, second}, test_device(),
      [&](const TransferPart& part) {
        seen.push_back({static_cast<int64_t>(part.index), part.begin, part.end});
        EXPECT_EQ(part.values[0].device(), test_device());
        EXPECT_EQ(part.values[1].numel(), part.end - part.begin);
        part.values[0].add_(static_cast<double>(part.begin));
        part.values[1].mul_(3);
      },
      64);
  EXPECT_EQ(seen,
            (std::vector<std::array<int64_t, 3>>{{0, 0, 64}, {0, 64, 128}, {0, 128, 130}, {1, 0, 64}, {2, 0, 1}}));
  EXPECT_EQ(values_of(first[0])[0], 1);
  EXPECT_EQ(values_of(first[0])[64], 65);
  EXPECT_EQ(values_of(first[0])[129], 129);
  for (const at::Tensor& tensor : second) EXPECT_THAT(values_of(tensor), Each(6));
}

TEST(Moments, MustGoWithWeightsOnTheHost) {
  const NamedTensors parameters = make_parameters();
  const HostWeights weights = on_host_of(parameters);
  EXPECT_THAT(
      [&] {
        AdamW(parameters, {}, {{0, 0, 4}}, MomentPlace::kDevice, weights);
      },
      ThrowsMessage<InvalidArgument>(HasSubstr("need moments on the host")));
}

TEST(Moments, WithoutMemoryOnTheHostSayWhatWouldDo) {
  const std::string message = message_of<std::runtime_error>([] { host_zeros({int64_t{1} << 60}, test_device()); });
  EXPECT_THAT(message, AllOf(HasSubstr("of host memory for moments"), HasSubstr("training.offload_optimizer = false")));
}

TEST(Gradients, NormIsOverAllOfThem) {
  const NamedTensors parameters = make_parameters();
  AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  double squares = 0;
  double count = 0;
  for (const auto& [name, parameter] : parameters) {
    for (const double value : values_of(parameter.grad())) squares += value * value, ++count;
  }
  // A sum of `count` positive squares in fp64, in whatever order, a root, and sums of roots' squares.
  const double bound = std::sqrt(squares) * (count + 8) * std::numeric_limits<double>::epsilon();
  EXPECT_NEAR(gradient_norm(optimizer), std::sqrt(squares), bound);
}

TEST(Gradients, NormOfHugeGradientsIsFinite) {
  const NamedTensors parameters = make_parameters();
  AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  parameters[0].second.grad().fill_(3e38F);
  EXPECT_TRUE(std::isfinite(gradient_norm(optimizer)));
}

TEST(Gradients, ClippingScalesToTheLimitAndLeavesSmallOnesAlone) {
  const NamedTensors parameters = make_parameters();
  AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  const double norm = gradient_norm(optimizer);
  const at::Tensor before = parameters[0].second.grad().clone();
  optimizer.clip_gradients(norm, norm);
  optimizer.clip_gradients(norm, 2 * norm);
  optimizer.clip_gradients(norm, 0);
  EXPECT_TRUE(same_bits(parameters[0].second.grad(), before));
  optimizer.clip_gradients(norm, norm / 4);
  // Every element has one rounding of the product and one of the factor.
  EXPECT_NEAR(gradient_norm(optimizer), norm / 4, norm / 4 * kEps);
  EXPECT_NEAR(parameters[0].second.grad()[3][4].item<double>(), before[3][4].item<double>() / 4, kEps);
}

TEST(Gradients, ThoseThatAreNotFiniteShowInTheirNorm) {
  const NamedTensors parameters = make_parameters();
  const AdamW optimizer(parameters, {});
  set_gradients(parameters, 0);
  parameters[0].second.grad()[36][18].fill_(std::numeric_limits<float>::infinity());
  parameters[2].second.grad()[0][4].fill_(std::nanf(""));
  const std::vector<double> norms = values_of(optimizer.gradient_norms());
  ASSERT_EQ(norms.size(), 3);
  EXPECT_FALSE(std::isfinite(norms[0]));
  EXPECT_TRUE(std::isfinite(norms[1]));
  EXPECT_FALSE(std::isfinite(norms[2]));
}

TEST(Gradients, AreGoneWhenCleared) {
  const NamedTensors parameters = make_parameters();
  set_gradients(parameters, 0);
  clear_gradients(parameters);
  for (const auto& [name, parameter] : parameters) EXPECT_FALSE(parameter.grad().defined());
}

}  // namespace
}  // namespace lighthouse
