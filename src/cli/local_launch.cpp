#include "cli/local_launch.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>
#include <system_error>

#include "parallel/free_port.h"
#include "train/stop_signal.h"

namespace lighthouse::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kLastWords{15};  // to name a rank that is lost: two looks at the store, and its timeout
constexpr std::chrono::seconds kLeaving{30};    // after SIGTERM, as torchrun
constexpr auto kForwarded = kStopSignals;

class Processes {
 public:
  void start(const std::string& program, const std::vector<std::string>& arguments, int64_t count, uint16_t port);
  /// Of the first that failed.
  int wait(const sigset_t& signals);

 private:
  void signal_all(int signal) const {
    for (const pid_t process : processes_) {
      if (process != 0) ::kill(process, signal);
    }
  }
  void reap();
  void note_end(size_t rank, int status);
  void end_others();
  bool all_ended() const {
    return std::all_of(processes_.begin(), processes_.end(), [](pid_t process) { return process == 0; });
  }

  std::vector<pid_t> processes_;  ///< 0: has ended
  int exit_code_ = 0;
  std::optional<Clock::time_point> failed_;  ///< when the first did
  int sent_ = 0;                             ///< the last signal to end the others
};

[[noreturn]] void become(const std::string& program, const std::vector<std::string>& arguments, int64_t rank,
                         int64_t count, uint16_t port) {
  const auto set = [](const char* name, int64_t value) { ::setenv(name, std::to_string(value).c_str(), 1); };
  for (const char* name : {"RANK", "LOCAL_RANK"}) set(name, rank);
  for (const char* name : {"WORLD_SIZE", "LOCAL_WORLD_SIZE"}) set(name, count);
  set("MASTER_PORT", port);
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  for (const char* name : {"TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"}) ::unsetenv(name);
  std::vector<char*> words{const_cast<char*>("lighthouse")};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // not to outlive a launcher that is killed
  ::execv(program.c_str(), words.data());
  ::_exit(1);
}

void Processes::start(const std::string& program, const std::vector<std::string>& arguments, int64_t count,
                      uint16_t port) {
  for (int64_t rank = 0; rank < count; ++rank) {
    const pid_t process = ::fork();
    if (process < 0) {
      const int error = errno;
      signal_all(SIGKILL);
      throw std::system_error(error, std::generic_category(), "launch: cannot start a process");
    }
    if (process == 0) {
      sigset_t none;
      sigemptyset(&none);
      ::sigprocmask(SIG_SETMASK, &none, nullptr);
      become(program, arguments, rank, count, port);
    }
    processes_.push_back(process);
  }
}

void Processes::note_end(size_t rank, int status) {
  processes_[rank] = 0;
  const bool signalled = WIFSIGNALED(status);
  const int code = signalled ? 1 : WEXITSTATUS(status);
  if (code == 0 || failed_) return;
  failed_ = Clock::now();
  exit_code_ = code;
  if (signalled) {
    std::cerr << "lighthouse launch: rank " << rank << " was ended by signal " << WTERMSIG(status) << " ("
              << ::strsignal(WTERMSIG(status)) << ")" << std::endl;
  }
}

void Processes::reap() {
  int status = 0;
  for (pid_t ended = 0; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    const auto place = std::find(processes_.begin(), processes_.end(), ended);
    if (place != processes_.end()) note_end(static_cast<size_t>(place - processes_.begin()), status);
  }
}

void Processes::end_others() {
  if (!failed_) return;
  const auto since = Clock::now() - *failed_;
  const int due = since > kLastWords + kLeaving ? SIGKILL : since > kLastWords ? SIGTERM : 0;
  if (due == sent_) return;
  sent_ = due;
  signal_all(due);
}

int Processes::wait(const sigset_t& signals) {
  while (true) {
    reap();
    if (all_ended()) return exit_code_;
    end_others();
    const timespec pause{1, 0};
    const int signal = ::sigtimedwait(&signals, nullptr, &pause);
    if (signal > 0 && signal != SIGCHLD) signal_all(signal);
  }
}

}  // namespace

int launch_here(const std::string& program, const std::vector<std::string>& arguments, int64_t count) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kForwarded) sigaddset(&signals, signal);
  sigaddset(&signals, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);  // they are waited for
  Processes processes;
  processes.start(program, arguments, count, free_port());
  return processes.wait(signals);
}

}  // namespace lighthouse::cli
