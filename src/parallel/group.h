// Ranks that exchange tensors, and what they exchange. Every rank of a group calls the same collectives in the same
// order.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/traffic.h"

namespace c10d {
class Backend;
class Work;
}  // namespace c10d

namespace lighthouse {

class Lookout;
class Watch;

/// A collective failed because of another rank: it died, stopped, hangs or does something else. The message names the
/// rank, and what it was last seen in. Nothing can be exchanged any more.
class RankFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What `watch` (null: nobody else) knows of `what`, which failed because of `why`, of whose lines only the first is
/// said, without the C++ frames that torch appends. Takes as long as Watch::diagnosis.
std::string failure_text(const Watch* watch, const std::string& what, const std::string& why);
/// Throws it as RankFailure.
[[noreturn]] void fail_by_rank(const Watch* watch, const std::string& what, const std::string& why);
/// The first line of a text.
std::string first_line(const std::string& text);

/// A collective under way. Its tensors must not be touched before wait(), which must be called.
class [[nodiscard]] Pending {
 public:
  Pending(std::vector<c10::intrusive_ptr<c10d::Work>> works, const Watch* watch, std::string what);
  Pending(Pending&&) noexcept;
  Pending& operator=(Pending&&) noexcept;
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  ~Pending();

  /// On the CPU until it is done; on a GPU the current stream waits, not the host. Throws RankFailure.
  void wait();

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
  const Watch* watch_;
  std::string what_;
};

/// Contiguous `in` [sum of in_counts, …], whose rows go to the ranks in order, in_counts[r] to rank r; contiguous `out`
/// [sum of out_counts, …] is what came from them, in order.
struct AllToAll {
  at::Tensor out, in;
  std::vector<int64_t> out_counts, in_counts;
};

class Group {
 public:
  /// A group of this rank alone, which exchanges nothing: its collectives copy.
  Group();
  /// `ranks`: of the world, in the order of the group; this one is ranks[rank]. `watch`, and the `lookout` of a group
  /// on GPUs, outlive it.
  Group(c10::intrusive_ptr<c10d::Backend> backend, std::vector<int64_t> ranks, int64_t rank, Watch* watch,
        Lookout* lookout = nullptr);
  ~Group();

  int64_t rank() const { return rank_; }
  int64_t size() const { return static_cast<int64_t>(ranks_.size()); }
  const std::vector<int64_t>& ranks() const { return ranks_; }
  /// What this rank has sent, by `what`.
  const TrafficByName& sent() const { return sent_; }

  /// All of `parts` in one message a rank, as far as the library can (NCCL). `what` stands in messages and traces:
  /// 'all-to-all of rows'; `which` behind it in messages, where there are several: 'bucket 2 of 9'.
  Pending all_to_all(const std::vector<AllToAll>& parts, const std::string& what, const std::string& which = "");

  /// Contiguous `out` [size, …] of every rank's contiguous `in` […], all of one shape.
  Pending all_gather(const at::Tensor& out, const at::Tensor& in, const std::string& what);

  /// `x`, which comes from collectives, on the host. Throws RankFailure where one of them failed: on a GPU it is then
  /// here that the host, which has waited, is told.
  at::Tensor to_host(const at::Tensor& x) const;

  /// `x` [..] of every rank, all of one shape: [ranks, ..]. Waited for.
  at::Tensor of_ranks(const at::Tensor& x, const std::string& what);

  /// The sum over ranks of `x` (small: it is gathered), added in the order of ranks: equal bits on every rank.
  at::Tensor sum(const at::Tensor& x, const std::string& what);

 private:
  template <typename Start>
  Pending guarded(const std::string& name, const std::string& which, const Start& start);

  c10::intrusive_ptr<c10d::Backend> backend_;
  std::vector<int64_t> ranks_{0};
  int64_t rank_ = 0;
  Watch* watch_ = nullptr;
  Lookout* lookout_ = nullptr;
  TrafficByName sent_;
};

}  // namespace lighthouse
