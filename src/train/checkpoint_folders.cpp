#include "train/checkpoint_folders.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>
#include <system_error>

#include "io/atomic_folder.h"
#include "io/manifest.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kPrefix = "step-";

/// By its manifest and file sizes: what a crash of the machine or a full disk spoils, at the price of a few stat calls.
bool looks_whole(const fs::path& folder) {
  try {
    check_file_sizes(folder, read_manifest(folder));
    return true;
  } catch (const std::runtime_error&) {  // DamagedFile, or std::system_error: what cannot be read is not counted on
    return false;
  }
}

}  // namespace

fs::path checkpoints_folder(const fs::path& run_dir) { return run_dir / "checkpoints"; }

fs::path checkpoint_folder(const fs::path& run_dir, int64_t step) {
  std::string digits = std::to_string(step);
  digits.insert(0, digits.size() < 8 ? 8 - digits.size() : 0, '0');
  return checkpoints_folder(run_dir) / (kPrefix + digits);
}

std::optional<CheckpointFolder> parse_checkpoint_folder(const fs::path& path) {
  std::string digits = path.filename().string();
  if (!digits.starts_with(kPrefix)) return std::nullopt;
  digits.erase(0, std::strlen(kPrefix));
  const bool replaced = digits.ends_with(kReplacedSuffix);
  if (replaced) digits.resize(digits.size() - std::strlen(kReplacedSuffix));
  constexpr size_t kMaxDigits = 18;  // fits 64 bits
  if (digits.empty() || digits.size() > kMaxDigits || digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return CheckpointFolder{std::stoll(digits), replaced, path};
}

std::vector<CheckpointFolder> checkpoint_folders(const fs::path& run_dir) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints_folder(run_dir), error)) {
    const auto folder = parse_checkpoint_folder(entry.path());
    if (folder && entry.is_directory()) found.push_back(*folder);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw_system_error(error.value(), "cannot list", checkpoints_folder(run_dir));
  }
  std::sort(found.begin(), found.end(), [](const CheckpointFolder& a, const CheckpointFolder& b) {
    return a.step != b.step ? a.step > b.step : b.replaced && !a.replaced;
  });
  return found;
}

void remove_old_checkpoints(const fs::path& run_dir, int64_t newest_step, int64_t keep) {
  std::set<int64_t> whole;  // steps
  for (const CheckpointFolder& folder : checkpoint_folders(run_dir)) {
    if (folder.step > newest_step) continue;
    if (static_cast<int64_t>(whole.size()) >= keep || whole.contains(folder.step)) {
      remove_folder(folder.path);
    } else if (looks_whole(folder.path)) {
      whole.insert(folder.step);
    }
  }
}

bool make_room(const fs::path& run_dir, int64_t new_step) {
  std::optional<fs::path> oldest;
  bool whole_one_stays = false;
  for (const CheckpointFolder& folder : checkpoint_folders(run_dir)) {  // newest first
    if (whole_one_stays && folder.step < new_step) oldest = folder.path;
    whole_one_stays = whole_one_stays || looks_whole(folder.path);
  }
  if (oldest) remove_folder(*oldest);
  return oldest.has_value();
}

void remove_leftovers(const fs::path& run_dir) noexcept {
  try {
    remove_abandoned_temporaries(run_dir);
    remove_abandoned_temporaries(checkpoints_folder(run_dir));
    for (const CheckpointFolder& folder : checkpoint_folders(run_dir)) {
      const fs::path successor = checkpoint_folder(run_dir, folder.step);
      if (!folder.replaced) continue;
      if (!fs::exists(successor)) {
        fs::rename(folder.path, successor);
      } else if (looks_whole(successor)) {
        remove_folder(folder.path);
      }
    }
  } catch (const std::exception&) {  // they cost space only
    return;
  }
}

}  // namespace lighthouse
