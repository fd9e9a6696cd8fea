// What a kernel knows of a SequencePlan: plain values, passed by value, and for packed rows a table of documents.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/geometry.h"

struct CUstream_st;

namespace lighthouse {

/// cudaStream_t, without CUDA's headers.
using CudaStream = CUstream_st*;

/// One document as the kernels see it. All counts start at 0 with the first document.
struct DeviceDocument {
  int32_t seq_len;  ///< tokens
  int32_t token_begin;
  int32_t entry_begin;  ///< flat entries
  int32_t slot_begin;
  int32_t row_begin;
  int32_t maxima_begin;  ///< entries of the levels from 1 up
  int32_t coarse_begin;  ///< coarsest entries of all documents before
  int32_t tile_begin;    ///< filled tiles of all documents before
  int32_t num_tiles;     ///< T_i, filled or not
  int32_t topk;          ///< k_i
};

struct DevicePlan {
  DeviceDocument only;              ///< the one document of an unpacked row
  const DeviceDocument* documents;  ///< device memory [num_documents] when num_documents > 1, else unused
  int32_t num_documents;
  int32_t num_levels, log2_pool;
  int32_t seq_len, gathered_len, num_slots;  ///< N, S, length of the slots table
  int32_t num_coarse, num_tiles;             ///< over all documents; filled tiles
  int32_t num_maxima;                        ///< num_slots - seq_len: entries of the levels from 1 up
  bool cover_prefix;

  LIGHTHOUSE_HOST_DEVICE Pyramid pyramid(const DeviceDocument& document) const {
    return {document.seq_len, num_levels, log2_pool};
  }
  /// The last document whose `field` is at most `position`, so empty documents are passed over.
  LIGHTHOUSE_HOST_DEVICE const DeviceDocument& find(int32_t DeviceDocument::*field, int64_t position) const {
    if (num_documents == 1) return only;
    int32_t low = 0;
    int32_t high = num_documents;  // documents[low].field <= position < documents[high].field
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      (documents[middle].*field <= position ? low : high) = middle;
    }
    return documents[low];
  }
  /// Where the maxima of (level, entry 0) of a document start, level >= 1, in an array of num_maxima.
  LIGHTHOUSE_HOST_DEVICE int64_t maxima_begin(const DeviceDocument& document, int level) const {
    return document.maxima_begin + pyramid(document).slot_offset(level) - document.seq_len;
  }
};

/// The records of all documents, empty ones left out; the caller copies them to the device where there are two or more.
std::vector<DeviceDocument> device_documents(const SequencePlan& plan);

/// `documents` is the table's host copy; the returned plan's device pointer is null, for the caller to set.
DevicePlan make_device_plan(const SequencePlan& plan, const std::vector<DeviceDocument>& documents);

}  // namespace lighthouse
