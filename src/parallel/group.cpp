#include "parallel/group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/record_function.h>

#include <functional>
#include <numeric>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>

#include "lighthouse/check.h"
#include "parallel/backend.h"
#include "parallel/lookout.h"
#include "parallel/watch.h"

namespace lighthouse {
namespace {

int64_t total(const std::vector<int64_t>& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

void check_rows(const char* name, const at::Tensor& x, const std::vector<int64_t>& counts, int64_t size,
                const std::string& what) {
  LIGHTHOUSE_CHECK(static_cast<int64_t>(counts.size()) == size, what, ": ", counts.size(), " counts of ", name, " for ",
                   size, " ranks");
  LIGHTHOUSE_CHECK(x.dim() >= 1 && x.is_contiguous(), what, ": ", name, " must be contiguous, with rows");
  LIGHTHOUSE_CHECK(x.size(0) == total(counts), what, ": ", name, " has ", x.size(0), " rows, its counts say ",
                   total(counts));
}

void check_part(const AllToAll& part, int64_t size, const std::string& what) {
  const auto& [out, in, out_counts, in_counts] = part;
  check_rows("out", out, out_counts, size, what);
  check_rows("in", in, in_counts, size, what);
  LIGHTHOUSE_CHECK(out.sizes().slice(1) == in.sizes().slice(1) && out.scalar_type() == in.scalar_type(), what,
                   ": rows of out and in differ: ", out.sizes(), " ", out.scalar_type(), " and ", in.sizes(), " ",
                   in.scalar_type());
}

int64_t row_bytes(const at::Tensor& x) {
  return std::accumulate(x.sizes().begin() + 1, x.sizes().end(), x.element_size(), std::multiplies<int64_t>());
}

c10::intrusive_ptr<c10d::Work> start_part(c10d::Backend& backend, const AllToAll& part) {
  at::Tensor out = part.out, in = part.in;
  std::vector<int64_t> out_counts = part.out_counts, in_counts = part.in_counts;
  return backend.alltoall_base(out, in, out_counts, in_counts);
}

}  // namespace

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string failure_text(const Watch* watch, const std::string& what, const std::string& why) {
  const std::string doing = watch == nullptr ? what : watch->doing();
  const std::string others = watch == nullptr ? "" : watch->diagnosis();
  return "'" + doing + "' failed: " +
         (others.empty()
              ? "all other ranks live and are in the same place; raise parallel.timeout if they are only slow"
              : "another rank is missing" + others) +
         "\n  (" + first_line(why) + ")";
}

void fail_by_rank(const Watch* watch, const std::string& what, const std::string& why) {
  throw RankFailure(failure_text(watch, what, why));
}

Pending::Pending(std::vector<c10::intrusive_ptr<c10d::Work>> works, const Watch* watch, std::string what)
    : works_(std::move(works)), watch_(watch), what_(std::move(what)) {}
Pending::Pending(Pending&&) noexcept = default;
Pending& Pending::operator=(Pending&&) noexcept = default;
Pending::~Pending() = default;

void Pending::wait() {
  const std::vector<c10::intrusive_ptr<c10d::Work>> works = std::exchange(works_, {});
  for (const auto& work : works) {
    std::string why;
    try {
      if (work->wait()) continue;
      why = "it was aborted";
    } catch (const std::exception& error) {
      why = error.what();
    }
    fail_by_rank(watch_, what_, why);
  }
}

Group::Group() = default;
Group::Group(c10::intrusive_ptr<c10d::Backend> backend, std::vector<int64_t> ranks, int64_t rank, Watch* watch,
             Lookout* lookout)
    : backend_(std::move(backend)), ranks_(std::move(ranks)), rank_(rank), watch_(watch), lookout_(lookout) {
  if (lookout_ != nullptr) lookout_->on_failure([backend = backend_] { backend->abort(); });
}
Group::~Group() = default;

template <typename Start>
Pending Group::guarded(const std::string& name, const std::string& which, const Start& start) {
  RECORD_USER_SCOPE(name);
  const std::string what = which.empty() ? name : name + ", " + which;
  if (watch_ != nullptr) watch_->enter(what);
  if (lookout_ != nullptr) lookout_->check();
  std::string why;
  try {
    std::vector<c10::intrusive_ptr<c10d::Work>> works = start();
    if (lookout_ != nullptr) {
      for (const auto& work : works) lookout_->follow(without_tensors(work), what);
    }
    return {std::move(works), watch_, what};
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (lookout_ != nullptr) lookout_->check();  // it has aborted what is under way, and knows why
  fail_by_rank(watch_, what, why);
}

Pending Group::all_to_all(const std::vector<AllToAll>& parts, const std::string& what, const std::string& which) {
  for (const AllToAll& part : parts) check_part(part, size(), what);
  if (size() == 1) {
    for (const AllToAll& part : parts) at::Tensor(part.out).copy_(part.in);
    return {{}, nullptr, what};
  }
  Traffic traffic{1, 0};
  for (const AllToAll& part : parts) traffic.bytes += all_to_all_bytes(part.in_counts, rank_, row_bytes(part.in));
  sent_[what] += traffic;
  return guarded(what, which, [&] {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    const bool as_one = parts.size() > 1 && backend_->supportsCoalescing();
    if (as_one) backend_->startCoalescing();
    for (const AllToAll& part : parts) works.push_back(start_part(*backend_, part));
    if (as_one) works = {backend_->endCoalescing()};
    return works;
  });
}

Pending Group::all_gather(const at::Tensor& out, const at::Tensor& in, const std::string& what) {
  LIGHTHOUSE_CHECK(out.is_contiguous() && in.is_contiguous() && out.numel() == size() * in.numel() &&
                       out.scalar_type() == in.scalar_type(),
                   what, ": out ", out.sizes(), " ", out.scalar_type(), " must be ", size(), " times in ", in.sizes(),
                   " ", in.scalar_type(), ", both contiguous");
  if (size() == 1) {
    out.view_as(in).copy_(in);
    return {{}, nullptr, what};
  }
  sent_[what] += all_gather_traffic(size(), static_cast<int64_t>(in.nbytes()));
  return guarded(what, /*which=*/"", [&] {
    at::Tensor all = out.view({-1}), mine = in.view({-1});
    return std::vector{backend_->_allgather_base(all, mine)};
  });
}

at::Tensor Group::to_host(const at::Tensor& x) const {
  at::Tensor host = x.to(at::kCPU);
  if (lookout_ != nullptr) lookout_->check();
  return host;
}

at::Tensor Group::of_ranks(const at::Tensor& x, const std::string& what) {
  std::vector<int64_t> shape{size()};
  shape.insert(shape.end(), x.sizes().begin(), x.sizes().end());
  const at::Tensor all = at::empty(shape, x.options());
  all_gather(all, x.contiguous(), what).wait();
  return all;
}

at::Tensor Group::sum(const at::Tensor& x, const std::string& what) {
  const at::Tensor all = of_ranks(x, what);
  at::Tensor result = all[0].clone();
  for (int64_t rank = 1; rank < size(); ++rank) result.add_(all[rank]);
  return result;
}

}  // namespace lighthouse
