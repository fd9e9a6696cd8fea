#include <iomanip>
#include <map>
#include <sstream>

#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/tensor_file.h"
#include "parallel/pieces.h"
#include "train/checkpoint_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kExtension = ".safetensors";

/// "model.safetensors", or "model-00001-of-00004.safetensors" of several ranks.
std::string file_name(const std::string& stem, const CheckpointRanks& ranks) {
  std::ostringstream name;
  name << stem << std::setfill('0');
  if (ranks.size > 1) name << "-" << std::setw(5) << ranks.rank + 1 << "-of-" << std::setw(5) << ranks.size;
  name << kExtension;
  return name.str();
}

FileEntry write_file(const fs::path& folder, const std::string& name, const NamedTensors& tensors,
                     const std::map<std::string, std::string>& metadata) {
  const HostTensors host(tensors);
  FileEntry entry{name, write_safetensors(folder / name, host.views, metadata), {}};
  for (const RawTensor& view : host.views) entry.tensors.push_back(describe_tensor(view));
  return entry;
}

FileEntry write_ranges(const fs::path& folder, const std::string& name, const std::vector<TensorRange>& ranges,
                       const std::map<std::string, std::string>& metadata) {
  NamedTensors tensors;
  for (const TensorRange& range : ranges) {
    tensors.emplace_back(detail::concat(range.name, "[", range.begin, ":", range.end(), "]"), range.values);
  }
  FileEntry entry = write_file(folder, name, tensors, metadata);
  for (size_t i = 0; i < ranges.size(); ++i) {
    entry.tensors[i].range = RangeEntry{ranges[i].name, ranges[i].shape, ranges[i].begin};
  }
  return entry;
}

FileEntry write_text(const fs::path& folder, const char* name, const std::string& text) {
  return {name, write_file_durably(folder / name, text), {}};
}

/// The index of weights in several files, by which transformers finds them.
std::string index_of_weights(const std::vector<FileEntry>& files) {
  int64_t bytes = 0;
  auto weight_map = nlohmann::json::object();
  for (const FileEntry& file : files) {
    if (!has_stem(file.name, kWeightsStem)) continue;
    for (const TensorEntry& tensor : file.tensors) {
      weight_map[tensor.name] = file.name;
      bytes += tensor.bytes;
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

}  // namespace

bool has_stem(const std::string& file, const std::string& stem) {
  return file.ends_with(kExtension) && (file.starts_with(stem + ".") || file.starts_with(stem + "-"));
}

NamedTensors weights_of_rank(const NamedTensors& model, const CheckpointRanks& ranks) {
  if (ranks.size == 1) return model;
  std::vector<Piece> pieces;  // whole tensors, as transformers reads them
  for (const auto& [name, tensor] : model) pieces.push_back({static_cast<int64_t>(pieces.size()), 0, tensor.numel()});
  const std::vector<int64_t> owners = owners_of(pieces, ranks.size);
  NamedTensors own;
  for (size_t i = 0; i < model.size(); ++i) {
    if (owners[i] == ranks.rank) own.push_back(model[i]);
  }
  return own;
}

std::vector<FileEntry> write_tensor_files(const fs::path& folder, const Checkpoint& part,
                                          const CheckpointRanks& ranks) {
  std::map<std::string, std::string> metadata = {{"step", std::to_string(part.step)}};
  if (ranks.size == 1) {
    return {write_file(folder, file_name(kWeightsStem, ranks), part.model, metadata),
            write_file(folder, file_name(kMomentsStem, ranks), whole_tensors(part.optimizer), metadata)};
  }
  std::vector<FileEntry> files;
  if (!part.optimizer.empty()) {
    files.push_back(write_ranges(folder, file_name(kMomentsStem, ranks), part.optimizer, metadata));
  }
  metadata["format"] = "pt";  // transformers asks for it
  if (!part.model.empty()) {
    files.push_back(write_file(folder, file_name(kWeightsStem, ranks), part.model, metadata));
  }
  return files;
}

std::vector<FileEntry> write_text_files(const fs::path& folder, const Checkpoint& part,
                                        const std::vector<FileEntry>& files, const CheckpointRanks& ranks) {
  std::vector<FileEntry> written = {write_text(folder, kStateFile, part.state_json)};
  if (ranks.size == 1) return written;
  written.push_back(write_text(folder, kHuggingfaceIndexFile, index_of_weights(files)));
  if (!part.model_config_json.empty()) {
    written.push_back(write_text(folder, kHuggingfaceConfigFile, part.model_config_json));
  }
  return written;
}

}  // namespace lighthouse
