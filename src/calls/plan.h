// The plan that calls follow: made once for a pass, or by a call for itself.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "calls/context.h"
#include "lighthouse/device_plan.h"
#include "lighthouse/geometry.h"

namespace lighthouse::calls {

/// Token offsets of packed documents, [num_documents + 1].
using Offsets = std::optional<std::span<const int64_t>>;
/// None of an empty list. A view.
inline Offsets optional_offsets(std::span<const int64_t> cu_seqlens) {
  return cu_seqlens.empty() ? std::nullopt : Offsets(cu_seqlens);
}

/// A SequencePlan, and what kernels see of it. Any thread may use it.
class CallPlan {
 public:
  /// make_plan. Packed documents need a batch of 1. Throws InvalidArgument, naming `operation`.
  CallPlan(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch, Offsets cu_seqlens);

  /// A plan that is made already, as a part of another (part_of). Its scorer has no documents to know: scores are
  /// given, or the norm's.
  explicit CallPlan(SequencePlan sequence);

  const SequencePlan& sequence() const { return sequence_; }
  Offsets cu_seqlens() const { return is_packed_ ? Offsets(cu_seqlens_) : std::nullopt; }
  bool is_packed() const { return is_packed_; }
  std::vector<int64_t> rows_of_documents() const;
  /// With the table of documents of packed rows, which is written once for each stream that asks. (So a CUDA graph that
  /// captures the first call of a pass captures the writing too; calls outside of it need a plan of their own.)
  DevicePlan on_device(CallContext& context) const;

 private:
  const DeviceDocument* table(CallContext& context) const;

  bool is_packed_;
  std::vector<int64_t> cu_seqlens_;
  SequencePlan sequence_;

  struct Table {
    CudaStream stream;
    std::shared_ptr<void> documents;
  };
  mutable std::mutex mutex_;  ///< of what follows, made when it is first asked for
  mutable std::optional<DevicePlan> device_plan_;
  mutable std::vector<DeviceDocument> documents_;
  mutable std::vector<Table> tables_;
};
using SharedPlan = std::shared_ptr<const CallPlan>;

inline SharedPlan share_plan(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch,
                             Offsets cu_seqlens) {
  return std::make_shared<const CallPlan>(operation, config, seq_len, batch, cu_seqlens);
}

/// Tiles [tile_begin, tile_end) of the plan of a row of `seq_len` tokens: what one rank has of a row that ranks share.
struct PartOfRow {
  int64_t seq_len, tile_begin, tile_end;
};

/// What a call is told about its plan: one that was made before and outlives the call, or what it is made of as soon as
/// sizes are known to be right.
class PlanArgument {
 public:
  PlanArgument(const SharedPlan& made) : made_(made.get()) {}  // NOLINT(google-explicit-constructor)
  PlanArgument(const SelectionConfig& config, Offsets cu_seqlens, int64_t seq_len = 0)
      : config_(config), cu_seqlens_(cu_seqlens), seq_len_(seq_len) {}
  /// Of a part of a row; `cu_seqlens` are of the whole row.
  PlanArgument(const SelectionConfig& config, Offsets cu_seqlens, const PartOfRow& part)
      : config_(config), cu_seqlens_(cu_seqlens), part_(part) {}

  /// The plan of a row of `seq_len` tokens; by default, of as many as the argument says.
  const CallPlan& get(const char* operation, int64_t batch, std::optional<int64_t> seq_len = std::nullopt) const;

 private:
  const CallPlan* made_ = nullptr;
  SelectionConfig config_;
  Offsets cu_seqlens_;
  int64_t seq_len_ = 0;
  std::optional<PartOfRow> part_;
  mutable std::optional<CallPlan> own_;
};

}  // namespace lighthouse::calls
