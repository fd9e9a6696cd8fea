// Signals by which people, shells and schedulers ask for an end, as a request to stop after the current step.
#pragma once

#include <array>
#include <csignal>

namespace lighthouse {

/// SIGINT and SIGTERM; SIGHUP (the terminal is gone), SIGUSR1, SIGUSR2 and SIGXCPU (schedulers send them before they
/// kill), unless they were ignored when the process began, as nohup(1) does.
inline constexpr std::array kStopSignals = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};
using StopActions = std::array<struct sigaction, kStopSignals.size()>;

/// Has them call `handler`, those that stay ignored apart. Returns what was to happen before.
StopActions handle_stop_signals(void (*handler)(int));

/// What follows "stopped by SIGTERM" where a run has no step yet.
inline constexpr const char* kNothingToSave =
    " before the first step; there is nothing to save, the same command starts again";

/// While one exists the first of these signals only sets a flag. SIGINT or SIGTERM once more, a second later or more,
/// ends the process at once, as it would without us. All else is the same request: timeout(1) signals a process and
/// then its group, schedulers send one signal after another, the kernel SIGXCPU every second. One within the life of
/// another changes nothing.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  ///< puts the earlier handlers back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  static int received();                       ///< the signal's number, or 0
  static const char* name(int signal_number);  ///< "SIGTERM"

 private:
  const bool is_outer_;
  StopActions earlier_{};
};

}  // namespace lighthouse
