#include "train/profile.h"

#include <fcntl.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <set>
#include <string>

#include "io/posix.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

void start_recording(at::Device device) {
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (device.is_cuda()) activities.insert(ActivityType::CUDA);
  const ProfilerConfig config(ProfilerState::KINETO, /*report_input_shapes=*/true);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(
      config, activities, {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE});
}

/// The profiler reports no failure of its own; what it wrote ends in a brace or is not whole.
bool ends_in_brace(const fs::path& path) {
  const FileDescriptor file = open_file(path, O_RDONLY);
  constexpr off_t kEnd = 16;
  std::string end(kEnd, ' ');
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  const ssize_t length = ::pread(file.get(), end.data(), end.size(), std::max<off_t>(size - kEnd, 0));
  end.resize(static_cast<size_t>(std::max<ssize_t>(length, 0)));
  const size_t last = end.find_last_not_of(" \n");
  return last != std::string::npos && end[last] == '}';
}

/// Why the file cannot grow: the number of that error, or EIO.
int write_error_of(const fs::path& path) {
  const FileDescriptor file = open_file(path, O_WRONLY | O_APPEND);
  return ::write(file.get(), " ", 1) < 0 ? errno : EIO;
}

/// Under a temporary name first: the file is whole or absent, whatever ends the process.
void save_durably(profiler::ProfilerResult& result, const fs::path& path) {
  const Temporary temporary = create_temporary_file(parent_folder(path));
  const fs::path partial = temporary.path.string() + ".tmp";  // the profiler's own, which it renames
  try {
    result.save(temporary.path.string());
    if (!ends_in_brace(temporary.path)) {
      throw_system_error(write_error_of(fs::exists(partial) ? partial : temporary.path), "cannot write the trace",
                         path);
    }
    sync_file(open_file(temporary.path, O_RDONLY), path);
    if (std::rename(temporary.path.c_str(), path.c_str()) != 0) throw_system_error(errno, "cannot replace", path);
  } catch (...) {
    ::unlink(temporary.path.c_str());
    ::unlink(partial.c_str());
    throw;
  }
  sync_folder(parent_folder(path));
}

}  // namespace

StepProfiler::StepProfiler(const ProfileOptions& options, at::Device device, int64_t next_step)
    : options_(options), device_(device), done_(options.file.empty()) {
  if (done_) return;
  constexpr int64_t kWarmUp = 3;  // steps in which memory and kernels are chosen
  if (options_.first_step == 0) options_.first_step = next_step + kWarmUp;
  if (options_.last_step == 0) options_.last_step = options_.first_step + 2;
  LIGHTHOUSE_CHECK(options_.first_step >= 1 && options_.first_step <= options_.last_step, "profile: steps ",
                   options_.first_step, " to ", options_.last_step, " are none; give the first and the last, from 1");
  const fs::path folder = parent_folder(options_.file);
  LIGHTHOUSE_CHECK(fs::is_directory(folder), "profile: '", options_.file.string(), "': there is no folder '",
                   folder.string(), "'; make it");
}

StepProfiler::~StepProfiler() {
  if (records_) profiler::disableProfiler();
}

void StepProfiler::begin(int64_t step) {
  if (done_ || records_ || step < options_.first_step || step > options_.last_step) return;
  start_recording(device_);
  records_ = true;
}

void StepProfiler::end(int64_t step, Console& console) {
  if (!records_) return;
  ++recorded_;
  if (step >= options_.last_step) finish(console);
}

void StepProfiler::finish(Console& console) {
  if (done_) return;
  done_ = true;
  if (!records_) {
    console.warn("no trace was written: the run did not reach step " + std::to_string(options_.first_step) +
                 ", the first to profile");
    return;
  }
  records_ = false;
  try {
    save_durably(*profiler::disableProfiler(), options_.file);
    console.note("trace of " + std::to_string(recorded_) + " steps written to " + options_.file.string() +
                 "; open it in https://ui.perfetto.dev or chrome://tracing");
  } catch (const std::exception& error) {
    console.warn(std::string(error.what()) + "; training goes on without a trace");
  }
}

}  // namespace lighthouse
