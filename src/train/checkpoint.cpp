#include "train/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "io/atomic_folder.h"
#include "io/errors.h"
#include "io/json_text.h"
#include "io/manifest.h"
#include "lighthouse/check.h"
#include "model/tensor_file.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kFolderPrefix = "step-";

FileEntry write_file(const fs::path& folder, const char* name, const NamedTensors& tensors, int64_t step) {
  const HostTensors host(tensors);
  FileEntry entry{name, write_safetensors(folder / name, host.views, {{"step", std::to_string(step)}}), {}};
  for (const RawTensor& view : host.views) entry.tensors.push_back(describe_tensor(view));
  return entry;
}

/// What was read is what is checked: another program could change the file in between.
NamedTensors read_file(const fs::path& path, const FileEntry& expected) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const TensorEntry& entry : expected.tensors) {
    tensors.emplace_back(entry.name, read_tensor(file, file.tensor(entry.name)));
    check_tensor(path, raw_view(entry.name, tensors.back().second), entry);
  }
  if (file.tensors().size() != expected.tensors.size()) {
    throw DamagedFile(detail::concat("'", path.string(), "': ", file.tensors().size(), " tensors; the manifest lists ",
                                     expected.tensors.size()));
  }
  check_file(path, summarize(file.file()), expected);  // the header too
  return tensors;
}

std::string read_state(const fs::path& path, const FileEntry& expected) {
  std::string text = read_text_file(path);
  check_file(path, {static_cast<int64_t>(text.size()), checksum(std::as_bytes(std::span(text)))}, expected);
  return text;
}

/// A checkpoint folder's name, taken apart.
struct Candidate {
  int64_t step;
  bool replaced;  ///< waits under its second name
  fs::path folder;
};

std::optional<Candidate> parse_folder(const fs::path& folder) {
  std::string digits = folder.filename().string();
  if (!digits.starts_with(kFolderPrefix)) return std::nullopt;
  digits.erase(0, std::strlen(kFolderPrefix));
  const bool replaced = digits.ends_with(kReplacedSuffix);
  if (replaced) digits.resize(digits.size() - std::strlen(kReplacedSuffix));
  constexpr size_t kMaxDigits = 18;  // fits 64 bits
  if (digits.empty() || digits.size() > kMaxDigits || digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return Candidate{std::stoll(digits), replaced, folder};
}

std::vector<Candidate> candidates(const fs::path& run_dir) {
  std::vector<Candidate> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_dir / "checkpoints", error)) {
    const auto candidate = parse_folder(entry.path());
    if (candidate && entry.is_directory()) found.push_back(*candidate);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw_system_error(error.value(), "cannot list", run_dir / "checkpoints");
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.step != b.step ? a.step > b.step : b.replaced && !a.replaced;
  });
  return found;
}

/// By its manifest and file sizes: what a crash of the machine or a full disk spoils, at the price of a few stat calls.
bool looks_whole(const fs::path& folder) {
  try {
    check_file_sizes(folder, read_manifest(folder));
    return true;
  } catch (const std::runtime_error&) {  // DamagedFile or std::system_error
    return false;
  }
}

void remove_old_checkpoints(const fs::path& run_dir, int64_t newest_step, int64_t keep) {
  std::set<int64_t> whole;  // steps
  for (const Candidate& candidate : candidates(run_dir)) {
    if (candidate.step > newest_step) continue;
    if (static_cast<int64_t>(whole.size()) >= keep || whole.contains(candidate.step)) {
      remove_folder(candidate.folder);
    } else if (looks_whole(candidate.folder)) {
      whole.insert(candidate.step);
    }
  }
}

/// Removes the oldest checkpoint but never the newest whole one. False when there is none that may go.
bool make_room(const fs::path& run_dir, int64_t new_step) {
  std::optional<fs::path> oldest;
  bool whole_one_stays = false;
  for (const Candidate& candidate : candidates(run_dir)) {  // newest first
    if (whole_one_stays && candidate.step < new_step) oldest = candidate.folder;
    whole_one_stays = whole_one_stays || looks_whole(candidate.folder);
  }
  if (oldest) remove_folder(*oldest);
  return oldest.has_value();
}

bool is_full(const std::system_error& error) {
  return error.code() == std::errc::no_space_on_device || error.code().value() == EDQUOT;
}

fs::path folder_name(int64_t step) {
  std::string digits = std::to_string(step);
  digits.insert(0, digits.size() < 8 ? 8 - digits.size() : 0, '0');
  return kFolderPrefix + digits;
}

void check_arguments(const Checkpoint& checkpoint, int64_t keep) {
  LIGHTHOUSE_CHECK(keep >= 1, "save_checkpoint: keep ", keep, " must be at least 1");
  LIGHTHOUSE_CHECK(checkpoint.step >= 0, "save_checkpoint: step ", checkpoint.step, " is negative");
  LIGHTHOUSE_CHECK(nlohmann::json::accept(checkpoint.state_json), "save_checkpoint: the state is not JSON");
}

void write_checkpoint(const fs::path& target, const Checkpoint& checkpoint) {
  AtomicFolder folder(target);
  Manifest manifest{checkpoint.step, {}};
  manifest.files.push_back(write_file(folder.path(), kModelFile, checkpoint.model, checkpoint.step));
  manifest.files.push_back(write_file(folder.path(), kOptimizerFile, checkpoint.optimizer, checkpoint.step));
  manifest.files.push_back({kStateFile, write_file_durably(folder.path() / kStateFile, checkpoint.state_json), {}});
  write_manifest(folder.path(), manifest);
  folder.commit();
}

}  // namespace

void save_checkpoint(const fs::path& run_dir, const Checkpoint& checkpoint, int64_t keep) {
  check_arguments(checkpoint, keep);
  std::error_code missing;
  const fs::file_type type = fs::status(run_dir, missing).type();
  if (type != fs::file_type::directory) {  // never made anew: a run that somebody removes does not come back in parts
    throw_system_error(missing ? missing.value() : ENOTDIR, "cannot save in", run_dir);
  }
  const fs::path parent = run_dir / "checkpoints";
  create_folders_durably(parent);
  remove_abandoned_temporaries(parent);

  const int64_t needed = total_bytes(checkpoint.model) + total_bytes(checkpoint.optimizer);
  while (free_bytes(parent) < needed && make_room(run_dir, checkpoint.step)) {
  }
  for (bool written = false; !written;) {
    try {
      write_checkpoint(parent / folder_name(checkpoint.step), checkpoint);
      written = true;
    } catch (const std::system_error& error) {
      if (!is_full(error) || !make_room(run_dir, checkpoint.step)) throw;
    }
  }

  try {
    remove_old_checkpoints(run_dir, checkpoint.step, keep);
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), detail::concat("checkpoint of step ", checkpoint.step,
                                                         " was saved, but an older one stays: ", error.what()));
  }
}

Checkpoint load_checkpoint(const fs::path& checkpoint_dir, CheckpointParts parts) {
  const Manifest manifest = read_manifest(checkpoint_dir);
  const auto named = parse_folder(checkpoint_dir);
  if (named && named->step != manifest.step) {
    throw DamagedFile(detail::concat("'", (checkpoint_dir / kManifestFile).string(), "': step ", manifest.step,
                                     " is not that of the folder"));
  }
  check_file_sizes(checkpoint_dir, manifest);
  const auto entry = [&](const char* name) -> const FileEntry& {
    for (const FileEntry& file : manifest.files) {
      if (file.name == name) return file;
    }
    throw DamagedFile(detail::concat("'", (checkpoint_dir / kManifestFile).string(), "': no file ", name));
  };
  Checkpoint checkpoint;
  checkpoint.step = manifest.step;
  checkpoint.state_json = read_state(checkpoint_dir / kStateFile, entry(kStateFile));
  checkpoint.model = read_file(checkpoint_dir / kModelFile, entry(kModelFile));
  const FileEntry& optimizer = entry(kOptimizerFile);
  if (parts == CheckpointParts::kAll) checkpoint.optimizer = read_file(checkpoint_dir / kOptimizerFile, optimizer);
  return checkpoint;
}

std::optional<Checkpoint> load_latest_checkpoint(const fs::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 CheckpointParts parts) {
  std::set<fs::path> damaged;
  for (;;) {
    const std::vector<Candidate> found = candidates(run_dir);
    if (found.empty()) return std::nullopt;
    bool one_went = false;
    for (const Candidate& candidate : found) {
      try {
        return load_checkpoint(candidate.folder, parts);
      } catch (const std::runtime_error& error) {  // DamagedFile or std::system_error
        if (!fs::exists(candidate.folder)) {       // the run that writes them has a newer one by now
          one_went = true;
          break;
        }
        if (!damaged.insert(candidate.folder).second) continue;
        warn(detail::concat("checkpoint of step ", candidate.step, " is damaged and passed over: ", error.what()));
      }
    }
    if (one_went) continue;
    throw DamagedFile(detail::concat("none of the ", found.size(), " checkpoints in '",
                                     (run_dir / "checkpoints").string(),
                                     "' is whole; to start again, remove that folder"));
  }
}

std::vector<fs::path> list_checkpoints(const fs::path& run_dir) {
  std::vector<fs::path> folders;
  for (const Candidate& candidate : candidates(run_dir)) folders.push_back(candidate.folder);
  return folders;
}

}  // namespace lighthouse
