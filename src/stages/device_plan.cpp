#include "lighthouse/device_plan.h"

namespace lighthouse {

std::vector<DeviceDocument> device_documents(const SequencePlan& plan) {
  std::vector<DeviceDocument> table;
  int64_t coarse_begin = 0;
  int64_t tile_begin = 0;
  int64_t group_begin = 0;
  int64_t unit_begin = 0;
  int64_t expanded_begin = 0;
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
                     narrow(document_tiles), narrow(document.topk), narrow(group_begin), narrow(unit_begin),
                     narrow(expanded_begin)});
    coarse_begin += num_coarse;
    group_begin += num_groups(document.pyramid);
    unit_begin += num_units(document.pyramid);
    for (int64_t filled = 0; filled < num_filled_tiles(num_coarse, document_tiles); ++filled) {
      expanded_begin += num_expanded_coarse(tile_shape(num_coarse, document_tiles, document.topk, filled));
    }
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
  device.num_groups = last.group_begin + static_cast<int32_t>(num_groups(pyramid));
  device.num_units = last.unit_begin + static_cast<int32_t>(num_units(pyramid));
  for (const Document& document : plan.documents) {
    device.has_padding = device.has_padding || document.pyramid.padded_len() != document.pyramid.seq_len;
  }
  const Pyramid first{device.only.seq_len, pyramid.num_levels, pyramid.log2_pool};
  for (int level = 0; level < pyramid.num_levels; ++level) {
    device.level_size[level] = static_cast<int32_t>(first.level_size(level));
    device.level_begin[level] = static_cast<int32_t>(first.slot_offset(level));
  }
  for (int log2 = 0; log2 <= kLog2MaxUnit; ++log2) {
    const int level = log2 / pyramid.log2_pool;
    const bool is_level = level < pyramid.num_levels && level * pyramid.log2_pool == log2;
    device.level_of[log2] = static_cast<int8_t>(is_level ? level : -1);
  }
  if (pyramid.num_levels > 1) {
    for (const Tile& tile : plan.tiles) {
      device.num_expanded += static_cast<int32_t>(num_expanded_coarse(tile.shape));
    }
  }
  device.cover_prefix = plan.config.cover_prefix;
  return device;
}

}  // namespace lighthouse
