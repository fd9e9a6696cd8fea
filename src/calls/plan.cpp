#include "calls/plan.h"

#include <utility>

#include "calls/run.h"
#include "cuda/upload.h"
#include "lighthouse/check.h"

namespace lighthouse::calls {
namespace {

void check_batch(const char* operation, int64_t batch) {
  LIGHTHOUSE_CHECK(batch == 1, operation, ": cu_seqlens is given with batch ", batch,
                   "; packed documents need batch 1: concatenate the sequences along the tokens");
}

SequencePlan checked_plan(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch,
                          const Offsets& cu_seqlens) {
  if (!cu_seqlens) return make_plan(config, seq_len, {}, operation);
  check_batch(operation, batch);
  LIGHTHOUSE_CHECK(!cu_seqlens->empty(), operation, ": cu_seqlens has 0 elements; it must hold the offsets 0, ..., ",
                   seq_len, ", or be left out");
  return make_plan(config, seq_len, *cu_seqlens, operation);
}

}  // namespace

CallPlan::CallPlan(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch,
                   Offsets cu_seqlens)
    : is_packed_(cu_seqlens.has_value()), sequence_(checked_plan(operation, config, seq_len, batch, cu_seqlens)) {
  if (is_packed_) cu_seqlens_.assign(cu_seqlens->begin(), cu_seqlens->end());
}

CallPlan::CallPlan(SequencePlan sequence) : is_packed_(sequence.documents.size() > 1), sequence_(std::move(sequence)) {}

std::vector<int64_t> CallPlan::rows_of_documents() const {
  std::vector<int64_t> num_rows;
  for (const Document& document : sequence_.documents) num_rows.push_back(document.num_rows);
  return num_rows;
}

DevicePlan CallPlan::on_device(CallContext& context) const {
  if constexpr (kWithCuda) {
    const std::lock_guard lock(mutex_);
    if (!device_plan_) {
      documents_ = device_documents(sequence_);
      device_plan_ = make_device_plan(sequence_, documents_);
    }
    DevicePlan plan = *device_plan_;
    if (documents_.size() > 1) plan.documents = table(context);
    return plan;
  }
  return {};
}

const DeviceDocument* CallPlan::table(CallContext& context) const {
  const CudaStream stream = context.stream();
  for (const Table& table : tables_) {
    if (table.stream == stream) return static_cast<const DeviceDocument*>(table.documents.get());
  }
  const std::shared_ptr<void> memory = context.keep(static_cast<int64_t>(documents_.size() * sizeof(DeviceDocument)));
  auto* documents = static_cast<DeviceDocument*>(memory.get());
  if constexpr (kWithCuda) upload(documents_, documents, stream);
  tables_.push_back({stream, memory});
  return documents;
}

const CallPlan& PlanArgument::get(const char* operation, int64_t batch, std::optional<int64_t> seq_len) const {
  if (made_ == nullptr && !part_) {
    return own_.emplace(operation, config_, seq_len.value_or(seq_len_), batch, cu_seqlens_);
  }
  if (part_) {
    const SequencePlan whole = checked_plan(operation, config_, part_->seq_len, batch, cu_seqlens_);
    own_.emplace(part_of(whole, part_->tile_begin, part_->tile_end));
  }
  const CallPlan& plan = part_ ? *own_ : *made_;
  const int64_t planned = plan.sequence().seq_len;
  const int64_t given = seq_len.value_or(planned);
  LIGHTHOUSE_CHECK(given == planned, operation, ": there are ", given, " tokens, but the plan is of ", planned);
  if (plan.is_packed()) check_batch(operation, batch);
  return plan;
}

}  // namespace lighthouse::calls
