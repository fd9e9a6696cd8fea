#include <algorithm>
#include <map>
#include <optional>

#include "io/errors.h"
#include "io/json_text.h"
#include "io/manifest.h"
#include "io/shape.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

template <typename... Parts>
void require(bool holds, const std::string& name, const Parts&... what) {
  if (!holds) throw DamagedFile(detail::concat("tensor ", quoted(name), ": ", what...));
}

/// A range and the file that holds it.
struct PlacedRange {
  const TensorEntry* tensor;
  const FileEntry* file;
  int64_t begin() const { return tensor->range->begin; }
  int64_t size() const { return tensor->shape.front(); }
  int64_t end() const { return begin() + size(); }
};

int64_t elements_of(const std::vector<int64_t>& shape, const std::string& name) {
  const std::optional<int64_t> count = bytes_of_shape(shape);
  require(count.has_value(), name, "its shape overflows 64 bits");
  return *count;
}

void check_ranges_of(const std::string& name, std::vector<PlacedRange> ranges) {
  const TensorEntry& first = *ranges.front().tensor;
  const int64_t elements = elements_of(first.range->shape, name);
  for (const PlacedRange& range : ranges) {
    require(range.tensor->dtype == first.dtype && range.tensor->range->shape == first.range->shape, name,
            "its ranges are of several dtypes or shapes");
    require(range.begin() <= elements && range.size() <= elements - range.begin(), name, "the range ",
            quoted(range.tensor->name), " ends after its ", elements, " elements");
  }
  std::sort(ranges.begin(), ranges.end(), [](const PlacedRange& a, const PlacedRange& b) {
    return std::pair(a.begin(), a.end()) < std::pair(b.begin(), b.end());
  });
  const auto missing = [&](int64_t begin, int64_t end) {
    require(begin >= end, name, "elements ", begin, " to ", end - 1, " of ", elements, " are missing");
  };
  int64_t covered = 0;
  const FileEntry* last = nullptr;
  for (const PlacedRange& range : ranges) {
    missing(covered, range.begin());
    require(range.begin() == covered, name, "elements ", range.begin(), " to ", std::min(covered, range.end()) - 1,
            " are in ", quoted(last == nullptr ? "" : last->name), " and in ", quoted(range.file->name));
    covered = range.end();
    last = range.file;
  }
  missing(covered, elements);
}

}  // namespace

void check_ranges(const Manifest& manifest) {
  std::map<std::string, std::vector<PlacedRange>> ranges;
  for (const FileEntry& file : manifest.files) {
    for (const TensorEntry& tensor : file.tensors) {
      if (tensor.range) ranges[tensor.range->name].push_back({&tensor, &file});
    }
  }
  for (const auto& [name, of_name] : ranges) check_ranges_of(name, of_name);
}

}  // namespace lighthouse
