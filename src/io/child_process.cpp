#include "io/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace lighthouse {
namespace {

struct Pipe {
  std::array<int, 2> ends{-1, -1};  ///< read, write; neither is inherited
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "no pipe");
  }
};

void close_if_open(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& words) : name_(words.front()) {
  Pipe to;
  Pipe from;
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, to.ends[0], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, from.ends[1], STDOUT_FILENO);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const int error = ::posix_spawnp(&process_, name_.c_str(), &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(to.ends[0]);
  ::close(from.ends[1]);
  input_ = to.ends[1];
  output_ = from.ends[0];
  if (error == 0) return;
  close_if_open(input_);
  close_if_open(output_);
  throw std::system_error(error, std::generic_category(), "cannot start '" + name_ + "'");
}

ChildProcess::~ChildProcess() {
  close_if_open(input_);
  close_if_open(output_);
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ChildProcess::write_line(const std::string& line) const {
  const std::string text = line + "\n";
  for (size_t written = 0; written < text.size();) {
    const ssize_t count = ::write(input_, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw std::runtime_error("'" + name_ + "' has ended");
    written += static_cast<size_t>(count);
  }
}

std::string ChildProcess::read_line() {
  std::array<char, 1 << 16> block;
  size_t end = read_.find('\n');
  while (end == std::string::npos) {
    const ssize_t count = ::read(output_, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error("'" + name_ + "' has ended");
    const size_t searched = read_.size();
    read_.append(block.data(), static_cast<size_t>(count));
    end = read_.find('\n', searched);
  }
  const std::string line = read_.substr(0, end);
  read_.erase(0, end + 1);
  return line;
}

}  // namespace lighthouse
