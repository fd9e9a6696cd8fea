#include "lighthouse/device_plan.h"

#include <algorithm>

namespace lighthouse {
namespace {

/// L of the levels that some document is selected from; 1 where all are attended to in full.
int deepest_levels(const SequencePlan& plan) {
  int num_levels = 1;
  for (const Document& document : plan.documents) num_levels = std::max(num_levels, document.pyramid.num_levels);
  return num_levels;
}

/// Windows of F tokens of a document, and those of them that gather reads.
struct Windows {
  int64_t all, read;
};
Windows windows_of(const Document& document, int num_levels) {
  Pyramid pyramid = document.pyramid;
  pyramid.num_levels = num_levels;
  const int64_t all = pyramid.num_coarse();
  if (document.pyramid.num_levels < num_levels) return {all, all};
  int64_t read = 0;
  for (int64_t tile = 0; tile < document.tiles.count; ++tile) read += num_expanded_coarse(document.tiles.tile(tile));
  return {all, num_levels == 1 ? 0 : read};
}

}  // namespace

std::vector<DeviceDocument> device_documents(const SequencePlan& plan) {
  std::vector<DeviceDocument> table;
  DeviceDocument next{};
  const int num_levels = deepest_levels(plan);
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  for (const Document& document : plan.documents) {
    const Pyramid& pyramid = document.pyramid;
    if (pyramid.seq_len == 0) continue;
    next.seq_len = narrow(pyramid.seq_len);
    next.num_levels = pyramid.num_levels;
    next.token_begin = narrow(document.token_begin);
    next.entry_begin = narrow(document.entry_begin);
    next.slot_begin = narrow(document.slot_begin);
    next.row_begin = narrow(document.row_begin);
    next.maxima_begin = narrow(document.slot_begin - document.token_begin);
    next.tiles_coarse = narrow(document.tiles.num_coarse);
    next.num_tiles = narrow(document.tiles.num_tiles);
    next.topk = narrow(document.tiles.topk);
    next.first_tile = narrow(document.tiles.first);
    next.num_filled = narrow(document.tiles.count);
    next.coarse_before = narrow(document.tiles.coarse_begin);
    table.push_back(next);
    const Windows windows = windows_of(document, num_levels);
    next.coarse_begin += narrow(windows.all);
    next.tile_begin += narrow(document.tiles.count);
    next.group_begin += narrow(num_groups(pyramid.seq_len));
    next.unit_begin += narrow(num_units(pyramid.seq_len, num_levels, pyramid.log2_pool));
    next.expanded_begin += narrow(windows.read);
  }
  return table;
}

DevicePlan make_device_plan(const SequencePlan& plan, const std::vector<DeviceDocument>& documents) {
  const DeviceDocument& last = documents.back();
  DevicePlan device{};
  device.only = documents.front();
  device.documents = nullptr;
  device.num_documents = static_cast<int32_t>(documents.size());
  device.num_levels = deepest_levels(plan);
  device.log2_pool = plan.config.log2_pool();
  device.seq_len = static_cast<int32_t>(plan.seq_len);
  device.gathered_len = static_cast<int32_t>(plan.gathered_len);
  device.num_slots = static_cast<int32_t>(plan.num_slots);
  device.num_tiles = static_cast<int32_t>(plan.tiles.size());
  device.num_maxima = device.num_slots - device.seq_len;
  device.num_groups = last.group_begin + static_cast<int32_t>(num_groups(last.seq_len));
  device.num_units =
      last.unit_begin + static_cast<int32_t>(num_units(last.seq_len, device.num_levels, device.log2_pool));
  for (const Document& document : plan.documents) {
    const Windows windows = windows_of(document, device.num_levels);
    device.num_coarse += static_cast<int32_t>(windows.all);
    device.num_expanded += static_cast<int32_t>(windows.read);
    device.has_padding = device.has_padding || document.pyramid.padded_len() != document.pyramid.seq_len;
  }
  const Pyramid first{device.only.seq_len, device.num_levels, device.log2_pool};
  for (int level = 0; level < device.num_levels; ++level) {
    device.level_size[level] = static_cast<int32_t>(first.level_size(level));
    device.level_begin[level] = static_cast<int32_t>(first.slot_offset(level));
  }
  for (int log2 = 0; log2 <= kLog2MaxUnit; ++log2) {
    const int level = log2 / device.log2_pool;
    const bool is_level = level < device.num_levels && level * device.log2_pool == log2;
    device.level_of[log2] = static_cast<int8_t>(is_level ? level : -1);
  }
  device.cover_prefix = plan.config.cover_prefix;
  return device;
}

}  // namespace lighthouse
