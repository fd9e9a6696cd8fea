// SIGINT and SIGTERM as a request to stop after the current step.
#pragma once

#include <array>
#include <csignal>

namespace lighthouse {

/// While one exists the first of these signals only sets a flag; another, a second later or more, ends the process at
/// once, as it would without us. Sooner it is the same request: timeout(1) and schedulers signal a process and then its
/// group. At most one at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  ///< puts the earlier handlers back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  static int received();                       ///< the signal's number, or 0
  static const char* name(int signal_number);  ///< "SIGTERM"

 private:
  std::array<struct sigaction, 2> earlier_{};
};

}  // namespace lighthouse
