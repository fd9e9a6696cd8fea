// A program that answers lines with lines.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace lighthouse {

/// Ends with this object, at the latest when its input does.
class ChildProcess {
 public:
  /// `words`: the program, looked for in PATH, and its arguments. Its standard error is this process's. Throws
  /// std::system_error naming the program when it cannot be started.
  explicit ChildProcess(const std::vector<std::string>& words);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Sends `line`, which holds no line end, and one.
  void write_line(const std::string& line) const;
  /// The next line it writes, without its end. Both throw std::runtime_error naming the program when it has ended.
  std::string read_line();

 private:
  std::string name_;
  pid_t process_ = 0;
  int input_ = -1, output_ = -1;  ///< of the program
  std::string read_;              ///< but not returned
};

}  // namespace lighthouse
