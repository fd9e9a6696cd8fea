#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "config/toml_depth.h"
#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/tensor_file.h"
#include "train/checkpoint_files.h"
#include "train/checkpoint_folders.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

template <typename... Parts>
[[noreturn]] void fail(const fs::path& path, const Parts&... what) {
  throw DamagedFile(detail::concat("'", path.string(), "': ", what...));
}

/// The configuration in a state, which is read when the checkpoint has been taken, is one that can be.
void check_state(const fs::path& path, const std::string& text) {
  const nlohmann::json state = parse_json(text, detail::concat("'", path.string(), "'"));
  if (!state.is_object() || !state.contains("config") || !state["config"].is_string()) return;
  const auto fault = too_large(state["config"].get<std::string>());
  if (fault) fail(path, "config: line ", fault->line, ": ", fault->what);
}

/// One file of tensors that the manifest lists. What was read is what is checked: another program could change the file
/// in between.
class TensorFile {
 public:
  TensorFile(const fs::path& folder, const FileEntry& expected)
      : path_(folder / expected.name), expected_(expected), file_(path_) {
    for (const TensorEntry& entry : expected.tensors) file_.tensor(entry.name);  // all are there
    if (file_.tensors().size() != expected.tensors.size()) {
      fail(path_, file_.tensors().size(), " tensors; the manifest lists ", expected.tensors.size());
    }
  }
  at::Tensor read(const TensorEntry& entry) const {
    at::Tensor tensor = read_tensor(file_, file_.tensor(entry.name));
    check_tensor(path_, raw_view(entry.name, tensor), entry);
    return tensor;
  }
  /// Every byte, the header too.
  void check_all() const { check_file(path_, summarize(file_.file()), expected_); }

 private:
  fs::path path_;
  const FileEntry& expected_;
  SafetensorsFile file_;
};

/// Where a tensor of a file lies in the whole one: in all of it, if it is no range.
RangeEntry place_of(const TensorEntry& entry) { return entry.range.value_or(RangeEntry{entry.name, entry.shape, 0}); }

int64_t elements_of(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

/// A range that is put together of what files hold of it.
struct Wanted {
  TensorRange range;  ///< values: where they go; undefined until the first of them are there, if that is left open
  int64_t size;

  /// Takes what `values`, elements of the whole tensor from `begin` on, have of it.
  void take(const at::Tensor& values, int64_t begin) {
    if (!range.values.defined() && begin == range.begin && values.numel() == size) {
      range.values = values;
      return;
    }
    if (!range.values.defined()) range.values = at::empty({size}, values.options());
    const auto [first, end] = overlap(begin, values.numel());
    range.values.slice(0, first - range.begin, end - range.begin).copy_(values.slice(0, first - begin, end - begin));
  }
  bool wants(int64_t begin, int64_t count) const {
    const auto [first, end] = overlap(begin, count);
    return first < end || (first == end && size == 0);
  }

 private:
  std::pair<int64_t, int64_t> overlap(int64_t begin, int64_t count) const {
    return {std::max(begin, range.begin), std::min(begin + count, range.begin + size)};
  }
};

/// The whole tensors of which files have ranges, in the order in which they come.
std::vector<Wanted> all_of(const std::vector<const FileEntry*>& files) {
  std::vector<Wanted> wanted;
  std::set<std::string> names;
  for (const FileEntry* file : files) {
    for (const TensorEntry& entry : file->tensors) {
      const RangeEntry place = place_of(entry);
      if (names.insert(place.name).second)
        wanted.push_back({{place.name, place.shape, 0, {}}, elements_of(place.shape)});
    }
  }
  return wanted;
}

std::vector<Wanted> some_of(const std::vector<const FileEntry*>& files, const std::vector<TensorRange>& ranges,
                            const fs::path& folder) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const Wanted& whole : all_of(files)) shapes.emplace(whole.range.name, whole.range.shape);
  std::vector<Wanted> wanted;
  for (const TensorRange& range : ranges) {
    const auto shape = shapes.find(range.name);
    LIGHTHOUSE_CHECK(shape != shapes.end(), "'", folder.string(), "': no moments ", quoted(range.name),
                     "; they belong to another model");
    LIGHTHOUSE_CHECK(shape->second == range.shape, "'", folder.string(), "': the moments ", quoted(range.name),
                     " have the shape ", excerpt(shape->second), ", the model needs ", excerpt(range.shape));
    LIGHTHOUSE_CHECK(range.begin >= 0 && range.end() <= elements_of(range.shape), "'", folder.string(), "': elements ",
                     range.begin, " to ", range.end() - 1, " of ", quoted(range.name), " are not in ",
                     excerpt(range.shape));
    const at::Tensor place = range.values.is_cpu() ? range.values : at::Tensor();
    wanted.push_back({{range.name, range.shape, range.begin, place}, range.values.numel()});
  }
  return wanted;
}

/// The values there, where they fit.
at::Tensor in_place(const at::Tensor& place, const at::Tensor& values) {
  if (!place.is_cpu() || place.dtype() != values.dtype() || place.sizes() != values.sizes()) return values;
  const at::NoGradGuard no_grad;
  place.copy_(values);
  return place;
}

/// Reads one checkpoint.
class Reader {
 public:
  Reader(const fs::path& folder, const CheckpointRanks& ranks)
      : folder_(folder), ranks_(ranks), manifest_(read_manifest(folder)) {
    const auto named = parse_checkpoint_folder(folder);
    if (named && named->step != manifest_.step) {
      fail(folder / kManifestFile, "step ", manifest_.step, " is not that of the folder");
    }
    check_file_sizes(folder, manifest_);
    weights_ = files_of(kWeightsStem);
    moments_ = files_of(kMomentsStem);
  }

  int64_t step() const { return manifest_.step; }

  /// Of all files that are not of tensors, the state.
  std::string texts() const {
    std::optional<std::string> state;
    for (const FileEntry& file : manifest_.files) {
      if (has_stem(file.name, kWeightsStem) || has_stem(file.name, kMomentsStem)) continue;
      std::string text = read_text_file(folder_ / file.name);
      check_file(folder_ / file.name, {static_cast<int64_t>(text.size()), checksum(std::as_bytes(std::span(text)))},
                 file);
      if (file.name != kStateFile) continue;
      check_state(folder_ / file.name, text);
      state = std::move(text);
    }
    if (!state) fail(folder_ / kManifestFile, "no file ", kStateFile);
    return *state;
  }

  NamedTensors weights(const NamedTensors* places) {
    std::map<std::string, at::Tensor> place_of_name;
    if (places != nullptr) place_of_name.insert(places->begin(), places->end());
    NamedTensors tensors;
    std::set<std::string> names;
    for (const FileEntry* expected : weights_) {
      const TensorFile file(folder_, *expected);
      for (const TensorEntry& entry : expected->tensors) {
        if (!names.insert(entry.name).second) {
          fail(folder_ / expected->name, "tensor ", quoted(entry.name), " stands in another file too");
        }
        const auto place = place_of_name.find(entry.name);
        const at::Tensor values = file.read(entry);
        tensors.emplace_back(entry.name, place == place_of_name.end() ? values : in_place(place->second, values));
      }
      check_if_ours(file);
    }
    return tensors;
  }

  std::vector<TensorRange> moments(const std::vector<TensorRange>* ranges) {
    std::vector<Wanted> wanted = ranges == nullptr ? all_of(moments_) : some_of(moments_, *ranges, folder_);
    std::multimap<std::string, Wanted*> by_name;
    for (Wanted& each : wanted) by_name.emplace(each.range.name, &each);
    for (const FileEntry* expected : moments_) {
      const TensorFile file(folder_, *expected);
      for (const TensorEntry& entry : expected->tensors) read(file, entry, by_name);
      check_if_ours(file);
    }
    std::vector<TensorRange> found;
    for (Wanted& each : wanted) found.push_back(std::move(each.range));
    return found;
  }

 private:
  std::vector<const FileEntry*> files_of(const std::string& stem) const {
    std::vector<const FileEntry*> files;
    for (const FileEntry& file : manifest_.files) {
      if (has_stem(file.name, stem)) files.push_back(&file);
    }
    if (files.empty()) fail(folder_ / kManifestFile, "no file ", stem, ".safetensors");
    return files;
  }

  /// Tensors of which nobody wants anything are not read.
  static void read(const TensorFile& file, const TensorEntry& entry,
                   const std::multimap<std::string, Wanted*>& by_name) {
    const RangeEntry place = place_of(entry);
    const int64_t count = elements_of(entry.shape);
    at::Tensor values;
    const auto [begin, end] = by_name.equal_range(place.name);
    for (auto each = begin; each != end; ++each) {
      if (!each->second->wants(place.begin, count)) continue;
      if (!values.defined()) values = file.read(entry).view({-1});
      each->second->take(values, place.begin);
    }
  }

  /// The ranks take turns at reading files as a whole.
  void check_if_ours(const TensorFile& file) {
    if (num_checked_++ % ranks_.size == ranks_.rank) file.check_all();
  }

  fs::path folder_;
  const CheckpointRanks& ranks_;
  Manifest manifest_;
  std::vector<const FileEntry*> weights_, moments_;
  int64_t num_checked_ = 0;
};

}  // namespace

Checkpoint read_checkpoint(const fs::path& folder, const WantedTensors& wanted, const CheckpointRanks& ranks) {
  Reader reader(folder, ranks);
  Checkpoint checkpoint;
  checkpoint.step = reader.step();
  checkpoint.state_json = reader.texts();
  checkpoint.model = reader.weights(wanted.places);
  if (wanted.moments) checkpoint.optimizer = reader.moments(wanted.ranges);
  return checkpoint;
}

}  // namespace lighthouse
