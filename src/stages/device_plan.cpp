#include "lighthouse/device_plan.h"

namespace lighthouse {

std::vector<DeviceDocument> device_documents(const SequencePlan& plan) {
  std::vector<DeviceDocument> table;
  int64_t coarse_begin = 0;
  int64_t tile_begin = 0;
  const int64_t num_tiles = ceil_div(plan.config.topk, plan.config.tile_topk);
  const int64_t row_coarse =
      ceil_div(plan.seq_len, int64_t{1} << ((plan.config.num_levels - 1) * plan.config.log2_pool()));
  for (const Document& document : plan.documents) {
    const int64_t num_coarse = document.pyramid.num_coarse();
    if (num_coarse == 0) continue;
    const int64_t document_tiles = ceil_div(num_coarse * num_tiles, row_coarse);
    const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
    table.push_back({narrow(document.pyramid.seq_len), narrow(document.token_begin), narrow(document.entry_begin),
                     narrow(document.slot_begin), narrow(document.row_begin),
                     narrow(document.slot_begin - document.token_begin), narrow(coarse_begin), narrow(tile_begin),
                     narrow(document_tiles), narrow(document.topk)});
    coarse_begin += num_coarse;
    tile_begin += num_filled_tiles(num_coarse, document_tiles);
  }
  return table;
}

DevicePlan make_device_plan(const SequencePlan& plan, const std::vector<DeviceDocument>& documents) {
  const DeviceDocument& last = documents.back();
  const Pyramid pyramid{last.seq_len, static_cast<int>(plan.config.num_levels), plan.config.log2_pool()};
  DevicePlan device{};
  device.only = documents.front();
  device.documents = nullptr;
  device.num_documents = static_cast<int32_t>(documents.size());
  device.num_levels = pyramid.num_levels;
  device.log2_pool = pyramid.log2_pool;
  device.seq_len = static_cast<int32_t>(plan.seq_len);
  device.gathered_len = static_cast<int32_t>(plan.gathered_len);
  device.num_slots = static_cast<int32_t>(plan.num_slots);
  device.num_coarse = last.coarse_begin + static_cast<int32_t>(pyramid.num_coarse());
  device.num_tiles = static_cast<int32_t>(plan.tiles.size());
  device.num_maxima = device.num_slots - device.seq_len;
  device.cover_prefix = plan.config.cover_prefix;
  return device;
}

}  // namespace lighthouse
