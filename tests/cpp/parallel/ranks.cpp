#include "cpp/parallel/ranks.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/DeviceGuard.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <numeric>
#include <stdexcept>

#include "parallel/free_port.h"
#include "support/test_device.h"

namespace lighthouse::parallel_test {
namespace {

using Clock = std::chrono::steady_clock;

struct Child {
  pid_t pid = 0;
  int pipe = -1;
};

[[noreturn]] void run_child(int64_t rank, int pipe, const std::function<std::string(int64_t rank)>& body) {
  int code = 0;
  std::string text;
  try {
    at::set_num_threads(1);
    // c10d asks for the name of every address that it connects to. Where a name server does not answer, a rank stands
    // still for five seconds at a time.
    ::setenv("RES_OPTIONS", "timeout:1 attempts:1", /*overwrite=*/0);
    std::signal(SIGPIPE, SIG_IGN);  // as in the program: what a rank sends to one that is lost
    text = body(rank);
  } catch (const std::exception& error) {
    text = error.what();
    code = 1;
  }
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(pipe, text.data() + done, text.size() - done);
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  ::close(pipe);
  ::_exit(code);  // no destructors of the test program
}

Child start_child(int64_t rank, const std::function<std::string(int64_t rank)>& body) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("pipe");
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork");
  if (pid == 0) {
    ::close(ends[0]);
    run_child(rank, ends[1], body);
  }
  ::close(ends[1]);
  return {pid, ends[0]};
}

/// Reads what comes within a short time; closes pipes that have ended.
void read_some(std::vector<Child>& children, std::vector<Outcome>& outcomes) {
  std::vector<pollfd> polls;
  for (const Child& child : children) polls.push_back({child.pipe, POLLIN, 0});  // a pipe of -1 is left out
  constexpr int kMilliseconds = 50;
  ::poll(polls.data(), polls.size(), kMilliseconds);
  char buffer[4096];
  for (size_t i = 0; i < children.size(); ++i) {
    if (polls[i].revents == 0) continue;
    const ssize_t count = ::read(children[i].pipe, buffer, sizeof buffer);
    if (count > 0) {
      outcomes[i].text.append(buffer, static_cast<size_t>(count));
    } else {
      ::close(children[i].pipe);
      children[i].pipe = -1;
    }
  }
}

/// Whether it has ended, and how.
bool reap(const Child& child, Outcome& outcome, Clock::time_point start) {
  int status = 0;
  if (::waitpid(child.pid, &status, WNOHANG) != child.pid) return false;
  outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  return true;
}

bool is_stopped(const Child& child) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(child.pid), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == child.pid;
}

/// Ends the test that called as skipped, however deep: gtest passes over an AssertionException, as reported already.
[[noreturn]] void skip(const std::string& reason) {
  [&] { GTEST_SKIP() << reason; }();
  throw testing::AssertionException({testing::TestPartResult::kSkip, __FILE__, __LINE__, reason.c_str()});
}

/// Leaves the test where there are too few GPUs; the program, with the exit code that ctest counts as skipped, where
/// there are none.
void need_gpus(int64_t size) {
  if (test_support::gpu_gate(num_gpus(), static_cast<int>(size))) return;
  if (num_gpus() == 0) test_support::skip_program();
  skip(std::to_string(size) + " ranks, " + std::to_string(num_gpus()) + " GPUs");
}

}  // namespace

bool on_gpus() { return named_test_device().is_cuda(); }

/// Asked by a process of its own: one that has used CUDA cannot be forked.
int num_gpus() {
  static const int number = [] {
    const auto outcome =
        run_processes(1, [](int64_t) { return std::to_string(at::detail::getCUDAHooks().deviceCount()); });
    return outcome.front().exit_code == 0 ? std::stoi(outcome.front().text) : 0;
  }();
  return number;
}

std::vector<Outcome> run_processes(int64_t size, const std::function<std::string(int64_t rank)>& body,
                                   std::chrono::seconds limit) {
  const Clock::time_point start = Clock::now();
  std::vector<Child> children;
  for (int64_t rank = 0; rank < size; ++rank) children.push_back(start_child(rank, body));
  std::vector<Outcome> outcomes(children.size());
  std::vector<size_t> left(children.size());
  std::iota(left.begin(), left.end(), 0);
  while (!left.empty()) {
    read_some(children, outcomes);
    std::erase_if(left, [&](size_t i) { return children[i].pipe == -1 && reap(children[i], outcomes[i], start); });
    const bool nothing_moves = std::all_of(left.begin(), left.end(), [&](size_t i) { return is_stopped(children[i]); });
    if (nothing_moves || Clock::now() >= start + limit) {
      for (const size_t i : left) ::kill(children[i].pid, SIGKILL);
    }
  }
  return outcomes;
}

std::vector<Outcome> run_ranks(int64_t size, const Body& body, const RanksOptions& options) {
  if (on_gpus()) need_gpus(size);
  Launch launch;
  launch.world_size = launch.local_world_size = size;
  launch.port = free_port();
  return run_processes(
      size,
      [&](int64_t rank) {
        Launch mine = launch;
        mine.rank = mine.local_rank = rank;
        if (on_gpus()) ::setenv("LIGHTHOUSE_TEST_DEVICE", ("cuda:" + std::to_string(rank)).c_str(), 1);
        const c10::OptionalDeviceGuard guard(test_device());
        World world(mine, {.device = test_device(), .timeout = options.timeout, .patience = options.patience});
        return body(world);
      },
      options.limit);
}

}  // namespace lighthouse::parallel_test
